"""Audacity's label tracks: start, end and label with tabs between them, and frequencies on a line that «\\» begins.

A label of a single point in time has equal times, or, in files of old versions, one time alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import (
    EventRow,
    OnRefused,
    Place,
    RowRefused,
    decimal_text,
    event_row,
    number,
    refusals_to,
    shown,
)
from clapboard.event_tables.text_files import lines, written_whole

_CONTINUATION = "\\"
_UNKNOWN_HZ = -1.0  # how Audacity writes a frequency that a label doesn't have


def read_audacity(path: Path, *, recording: str, on_refused: OnRefused | None = None) -> Iterator[EventRow]:
    """The labels of a track as events of `recording`, because the file doesn't name it.

    Raises `EventTableError` for a file that can't be read, and `RowRefused` for a line that can't be used, unless
    `on_refused` takes it.
    """
    pending: _Label | None = None
    for count, text in lines(path):
        text = text.rstrip("\r\n")
        if text.startswith(_CONTINUATION):
            pending = pending and pending.with_frequencies(text)
            continue
        if pending is not None:
            yield from _row(pending, recording, on_refused)
        pending = _Label(Place(path.name, count), text) if text.strip() else None
    if pending is not None:
        yield from _row(pending, recording, on_refused)


def write_audacity(path: Path, rows: Iterable[EventRow]) -> int:
    """Write one recording's events as a label track; returns their number.

    Only times, frequencies and labels have a place in it. Raises `EventTableError` if the file can't be written.
    """
    count = 0
    with written_whole(path) as file:
        for count, row in enumerate(rows, 1):  # noqa: B007
            file.write(f"{decimal_text(row.start_s)}\t{decimal_text(row.end_s)}\t{row.label}\n")
            if row.low_hz is not None or row.high_hz is not None:
                low, high = (_UNKNOWN_HZ if x is None else x for x in (row.low_hz, row.high_hz))
                file.write(f"{_CONTINUATION}\t{decimal_text(low)}\t{decimal_text(high)}\n")
    return count


def is_audacity(line: str) -> bool:
    """Whether a file's first line is a label's."""
    place = Place("", 1)
    try:
        return "\t" in line and number(place, "start", line.split("\t")[0]) is not None
    except EventTableError:
        return False


@dataclass(frozen=True, slots=True)
class _Label:
    place: Place
    text: str
    frequencies: str = ""

    def with_frequencies(self, text: str) -> _Label:
        """The label with the line behind it; later versions' further such lines are left aside, as Audacity does."""
        return self if self.frequencies else _Label(self.place, self.text, text)


def _row(label: _Label, recording: str, on_refused: OnRefused | None) -> Iterator[EventRow]:
    with refusals_to(on_refused):
        yield _event(label, recording)


def _event(label: _Label, recording: str) -> EventRow:
    place = label.place
    start, *others = label.text.split("\t")
    if not others:
        raise place.refused(f"“{shown(label.text)}” isn't a label: it needs a time, a tab and a text.")
    end = others[0]
    try:
        is_point = number(place, "end", end) is None
    except RowRefused:
        is_point = True
    text = " ".join(others if is_point else others[1:])  # Audacity itself ends a label at a tab
    cells = {"recording": recording, "start_s": start, "end_s": start if is_point else end, "label": text}
    return event_row(place, cells | _frequencies(label))


def _frequencies(label: _Label) -> dict[str, str]:
    cells = dict(zip(("low_hz", "high_hz"), label.frequencies.split("\t")[1:], strict=False))
    return {
        name: cell
        for name, cell in cells.items()
        if (value := number(label.place, "frequency", cell)) is not None and value >= 0
    }
