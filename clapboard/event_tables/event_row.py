"""`EventRow`, one labelled event of a recording, and what makes it of the cells that a file has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite

from clapboard.errors import EventTableError

MAX_TIME_S = 1e8
"""The latest time that an event may have, some three years: what is beyond is no time in a recording."""
MAX_FREQUENCY_HZ = 1e8
MAX_CHANNELS = 1000
MAX_TEXT = 1000
"""How many characters a label, a recording's name or any other text may have."""

_TEXTS = ("recording", "label", "annotator", "version", "licence", "source")
_SHOWN = 40
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_WHITE_SPACE = re.compile(r"[\t\n\v\f\r\x85]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class EventRow:
    """A label from `start_s` to `end_s` of a recording, both in seconds of that file.

    Texts have no control characters and no white space at their ends; they are empty where nothing is known.
    """

    recording: str  # its name or path, as the table has it: never to be opened as it is
    start_s: float
    end_s: float  # not before the start; the same for a point in time
    label: str
    score: float | None = None
    annotator: str = ""
    version: str = ""  # of the model whose suggestion it is, or was
    licence: str = ""
    source: str = ""  # where the recording is from
    channel: int | None = None  # from 0, as in Label Studio
    low_hz: float | None = None
    high_hz: float | None = None
    whole: bool = False  # the label is the whole recording's; `end_s` is its length, or 0 if that isn't known


class RowRefused(EventTableError):
    """A row can't be used."""

    code = "event_table"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: the file's name, and the line from 1; 0 if it isn't in a file."""

    file: str
    line: int

    def refused(self, reason: str) -> RowRefused:
        """The error that the row of this place is refused with; `reason` says what is wrong, and the remedy."""
        line = f", line {self.line}" if self.line else ""
        return RowRefused(f"{shown(self.file)}{line}: {reason}")


OnRefused = Callable[[RowRefused], object]


@contextmanager
def refusals_to(on_refused: OnRefused | None) -> Iterator[None]:
    """Hand the refusal of a row to `on_refused`, and go on; without one it is raised."""
    try:
        yield
    except RowRefused as refused:
        if on_refused is None:
            raise
        on_refused(refused)


"""Is told of each row that is left out. Without it, the first such row is raised."""


def event_row(place: Place, cells: Mapping[str, str], *, whole: bool = False) -> EventRow:
    """The row whose fields are written in `cells`; an empty or missing cell is an unknown.

    Raises `RowRefused` for a cell that isn't what its column holds, an end before the start, and a missing label.
    """
    texts = {name: _text(place, name, cells.get(name, "")) for name in _TEXTS}
    if not texts["recording"]:
        raise place.refused("the row doesn't name its recording: add its file name.")
    if not texts["label"]:
        raise place.refused("the row has no label: write one, or delete the row.")
    start_s = _bounded(place, "start", cells.get("start_s", ""), MAX_TIME_S)
    end_s = _bounded(place, "end", cells.get("end_s", ""), MAX_TIME_S)
    if whole:
        start_s = start_s or 0.0
        end_s = end_s or 0.0
    if start_s is None or end_s is None:
        raise place.refused(f"the row has no {'start' if start_s is None else 'end'}: write it in seconds.")
    low_hz = _bounded(place, "lowest frequency", cells.get("low_hz", ""), MAX_FREQUENCY_HZ)
    high_hz = _bounded(place, "highest frequency", cells.get("high_hz", ""), MAX_FREQUENCY_HZ)
    if end_s < start_s:
        raise place.refused(f"the end {end_s:g} s is before the start {start_s:g} s: correct the times.")
    if low_hz is not None and high_hz is not None and high_hz < low_hz:
        raise place.refused(f"the highest frequency {high_hz:g} Hz is below the lowest, {low_hz:g} Hz: correct them.")
    score = number(place, "score", cells.get("score", ""))
    channel = _channel(place, cells.get("channel", ""))
    return EventRow(
        texts["recording"],
        start_s,
        end_s,
        texts["label"],
        score,
        texts["annotator"],
        texts["version"],
        texts["licence"],
        texts["source"],
        channel,
        low_hz,
        high_hz,
        whole,
    )


def checked(row: EventRow, place: Place) -> EventRow:
    """The row, with its texts as those of a file. Raises `RowRefused` where it couldn't have been read from one."""
    numbers = {
        name: "" if (value := getattr(row, name)) is None else decimal_text(value)
        for name in ("start_s", "end_s", "score", "channel", "low_hz", "high_hz")
    }
    return event_row(place, {name: getattr(row, name) for name in _TEXTS} | numbers, whole=row.whole)


def number(place: Place, column: str, cell: str) -> float | None:
    """The number in a cell, with a decimal point or comma; None for an empty cell.

    Raises `RowRefused` for anything else, such as NaN, infinities, «1.000,5» and «1_000».
    """
    text = cell.strip()
    if not text:
        return None
    value = float(text.replace(",", ".")) if len(text) <= 400 and _NUMBER.fullmatch(text) else None
    if value is None or not isfinite(value):
        raise place.refused(f"the {column} “{shown(text)}” isn't a number: write it like 12.5.")
    return value


def decimal_text(value: float) -> str:
    """The shortest text that reads back as the same number, without an exponent, which not every program reads."""
    if not isfinite(value):
        return str(value)
    return f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)


def shown(text: str) -> str:
    """A stranger's text for a sentence: short, on one line, with control characters as escapes."""
    start = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in start)


def _text(place: Place, name: str, cell: str) -> str:
    if not (cell.isascii() and cell.isprintable()):
        cell = _WHITE_SPACE.sub(" ", cell)
        if _CONTROL.search(cell):
            raise place.refused(f"the {name} “{shown(cell)}” has control characters: type it again.")
    text = cell.strip()
    if len(text) > MAX_TEXT:
        raise place.refused(f"the {name} “{shown(text)}” is longer than {MAX_TEXT} characters: shorten it.")
    return text


def _bounded(place: Place, column: str, cell: str, most: float) -> float | None:
    value = number(place, column, cell)
    if value is not None and not 0 <= value <= most:
        below = value < 0
        raise place.refused(
            f"the {column} {shown(cell.strip())} is {'negative' if below else f'above {most:g}'}: correct it."
        )
    return value if value is None else value + 0.0  # no negative zero


def _channel(place: Place, cell: str) -> int | None:
    value = number(place, "channel", cell)
    if value is None:
        return None
    if not value.is_integer() or not 0 <= value < MAX_CHANNELS:
        raise place.refused(f"the channel “{shown(cell.strip())}” isn't a whole number from 0: correct it.")
    return int(value)
