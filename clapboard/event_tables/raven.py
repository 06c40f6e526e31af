"""Raven selection tables, as Raven Pro, Raven Lite, BirdNET and others write them: text with tabs, one event a line.

A selection has a line for each view that it is shown in, and these lines are one event. In a table of several sound
files «Begin Time (s)» counts through all of them, and «File Offset (s)» within the one that «Begin File» names.
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import (
    EventRow,
    OnRefused,
    Place,
    decimal_text,
    event_row,
    number,
    refusals_to,
    shown,
)
from clapboard.event_tables.text_files import lines, written_whole

COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin File",
    "Begin Path",
    "File Offset (s)",
    "Annotation",
    "Score",
    "Annotator",
    "Version",
    "Licence",
    "Source",
)
LABEL_COLUMNS = (
    "annotation",
    "annotations",
    "label",
    "species",
    "common name",
    "call type",
    "type",
    "class",
    "tag",
    "tags",
    "sound type",
    "call",
    "id",
    "scientific name",
    "species code",
)
"""The columns that are looked for the label, in this order and in any case."""

_NAMES = {
    "channel": ("channel",),
    "low_hz": ("low freq (hz)",),
    "high_hz": ("high freq (hz)",),
    "score": ("score", "confidence", "probability"),
    "annotator": ("annotator", "analyst", "observer"),
    "version": ("version", "model version"),
    "licence": ("licence", "license"),
    "source": ("source",),
}
_BEGIN, _END, _DELTA, _OFFSET = "begin time (s)", "end time (s)", "delta time (s)", "file offset (s)"


def read_raven(
    path: Path, *, recording: str, label_column: str = "", on_refused: OnRefused | None = None
) -> Iterator[EventRow]:
    """The events of a table. `recording` is the file that they are of where the table names none.

    Raises `EventTableError` for a file that is no such table or has no column for labels, and `RowRefused` for a line
    that can't be used, unless `on_refused` takes it.
    """
    table = lines(path)
    _, header = next(table, (1, ""))
    columns = _columns(path, header, label_column)
    pending: _Line | None = None
    views: dict[tuple[str, ...], str] = {}
    for count, text in table:
        values = text.rstrip("\r\n").split("\t")
        if not any(value.strip() for value in values):
            continue
        cells = dict(zip(columns, values, strict=False))
        line = _Line(Place(path.name, count), cells, any(value.strip() for value in values[len(columns) :]))
        if line.selection and views.setdefault(line.key, line.view) != line.view:  # the same event in another view
            if pending is not None and pending.key == line.key:
                pending = pending.completed(line.cells)
            continue
        if pending is not None:
            yield from _row(pending, recording, on_refused)
        pending = line
    if pending is not None:
        yield from _row(pending, recording, on_refused)


def write_raven(path: Path, rows: Iterable[EventRow]) -> int:
    """Write one recording's events as a table; returns their number. A channel that isn't known is the first one.

    Raises `EventTableError` if the file can't be written.
    """
    count = 0
    with written_whole(path) as file:
        file.write("\t".join(COLUMNS) + "\n")
        for count, row in enumerate(rows, 1):
            has_frequencies = row.low_hz is not None or row.high_hz is not None
            view = "Spectrogram 1" if has_frequencies else "Waveform 1"
            start, end = decimal_text(row.start_s), decimal_text(row.end_s)
            low, high, score = ("" if x is None else decimal_text(x) for x in (row.low_hz, row.high_hz, row.score))
            cells = [str(count), view, str((row.channel or 0) + 1), start, end, low, high]
            cells += [ntpath.basename(row.recording), row.recording, start, row.label, score]
            cells += [row.annotator, row.version, row.licence, row.source]
            file.write("\t".join(cells) + "\n")
    return count


def is_raven(header: str) -> bool:
    """Whether a file's first line is that of a selection table."""
    names = {name.strip().lower() for name in header.split("\t")}
    return _BEGIN in names and bool(names & {_END, _DELTA})


@dataclass(frozen=True, slots=True)
class _Line:
    place: Place
    cells: Mapping[str, str]
    is_longer: bool = False  # than the header

    @property
    def selection(self) -> str:
        return self.cells.get("selection", "").strip()

    @property
    def view(self) -> str:
        return self.cells.get("view", "").strip()

    @property
    def key(self) -> tuple[str, ...]:
        """What is alike in all lines of a selection."""
        names = ("selection", "channel", _BEGIN, _END, "begin file")
        return tuple(self.cells.get(name, "").strip() for name in names)

    def completed(self, cells: Mapping[str, str]) -> _Line:
        """The line, with the other's cells where its own are empty."""
        own = {name: cell for name, cell in self.cells.items() if cell.strip()}
        return _Line(self.place, dict(cells) | own, self.is_longer)


def _columns(path: Path, header: str, label_column: str) -> list[str]:
    """The columns' names in lower case, and that of labels as «label»."""
    names = [name.strip().strip('"').lower() for name in header.rstrip("\r\n").split("\t")]
    if not is_raven("\t".join(names)):
        raise EventTableError(
            f"{shown(path.name)}, line 1: it isn't a Raven selection table, because it has no “Begin Time (s)” and "
            "“End Time (s)”: export the table from Raven with them, or give another --format."
        )
    candidates = (label_column.strip().lower(),) if label_column else LABEL_COLUMNS
    chosen = next((name for name in candidates if name in names), None)
    if chosen is None:
        there = ", ".join(shown(name.strip()) for name in header.split("\t")[:20])
        raise EventTableError(
            f"{shown(path.name)}, line 1: no column has the labels: name it with --label-column; there are {there}."
        )
    return ["label" if name == chosen else name if name != "label" else "another label" for name in names]


def _row(line: _Line, recording: str, on_refused: OnRefused | None) -> Iterator[EventRow]:
    with refusals_to(on_refused):
        yield _event(line, recording)


def _event(line: _Line, recording: str) -> EventRow:
    cells = line.cells
    if line.is_longer:
        raise line.place.refused("the line has more cells than the header: take the tabs out of its texts.")
    fields = {
        field: next((cells[name] for name in names if cells.get(name, "").strip()), "")
        for field, names in _NAMES.items()
    }
    fields["label"] = cells.get("label", "")
    fields["recording"] = cells.get("begin path", "").strip() or cells.get("begin file", "").strip() or recording
    fields["start_s"], fields["end_s"] = _times(line)
    if channel := number(line.place, "channel", fields["channel"]):
        fields["channel"] = decimal_text(channel - 1)  # Raven counts from 1
    return event_row(line.place, fields)


def _times(line: _Line) -> tuple[str, str]:
    """Start and end within the recording, as text."""
    cells, place = line.cells, line.place
    begin_s = number(place, "begin time", cells.get(_BEGIN, ""))
    end_s = number(place, "end time", cells.get(_END, ""))
    if end_s is None and begin_s is not None:
        delta_s = number(place, "delta time", cells.get(_DELTA, ""))
        end_s = None if delta_s is None else begin_s + delta_s
    offset_s = number(place, "file offset", cells.get(_OFFSET, ""))
    if offset_s is not None and begin_s is not None and end_s is not None and offset_s != begin_s:
        # Rounded to what a table has, so that a difference of two times doesn't show its arithmetic.
        begin_s, end_s = offset_s, round(offset_s + (end_s - begin_s), 9)
    return "" if begin_s is None else decimal_text(begin_s), "" if end_s is None else decimal_text(end_s)
