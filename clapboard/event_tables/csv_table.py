"""CSV with a header: `path,start_s,end_s,label` and more columns, as spreadsheets and other programs write it.

A text that a spreadsheet would take for a formula is written with an apostrophe before it, which is taken off again
when it is read. A row without start and end labels its whole recording.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import (
    EventRow,
    OnRefused,
    Place,
    decimal_text,
    event_row,
    refusals_to,
    shown,
)
from clapboard.event_tables.text_files import lines, written_whole

COLUMNS = (
    "path",
    "start_s",
    "end_s",
    "label",
    "score",
    "annotator",
    "version",
    "licence",
    "source",
    "channel",
    "low_hz",
    "high_hz",
)

_NAMES = {
    "recording": ("path", "recording", "file", "filename", "file_name", "audio", "begin_file"),
    "start_s": ("start_s", "start", "onset", "begin", "start_time", "begin_time_s", "start_seconds"),
    "end_s": ("end_s", "end", "offset", "end_time", "end_time_s", "stop", "end_seconds"),
    "label": ("label", "event_label", "class", "species", "annotation", "tag", "common_name"),
    "score": ("score", "confidence", "probability"),
    "annotator": ("annotator",),
    "version": ("version", "model_version"),
    "licence": ("licence", "license"),
    "source": ("source",),
    "channel": ("channel",),
    "low_hz": ("low_hz", "low_f", "low_freq_hz"),
    "high_hz": ("high_hz", "high_f", "high_freq_hz"),
}
"""The headings that a field is looked for under, in this order; capitals, blanks and brackets make no difference."""

_DELIMITERS = (",", ";", "\t")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def read_csv(
    path: Path, *, recording: str = "", label_column: str = "", on_refused: OnRefused | None = None
) -> Iterator[EventRow]:
    """The events of a table. `recording` is the file that they are of where the table has no such column.

    Commas, semicolons or tabs separate columns. Raises `EventTableError` for a file that is no such table, and
    `RowRefused` for a row that can't be used, unless `on_refused` takes it.
    """
    table = lines(path)
    _, header = next(table, (1, ""))
    delimiter = _delimiter(header)
    if declared := re.match(r"sep=(.)[\r\n]", header):  # Excel's own first line
        delimiter = declared[1]
        header = "\n"
    texts = (text for _, text in table)
    reader = csv.reader(itertools.chain([header], texts), delimiter=delimiter)
    try:
        names = next(filter(None, reader), [])
        columns = _columns(path, names, recording, label_column)
        while True:
            place = Place(path.name, reader.line_num + 1)
            cells = next(reader, None)
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield from _row(place, columns, cells, recording, on_refused)
    except csv.Error as error:
        raise EventTableError(
            f"{shown(path.name)}, line {reader.line_num}: it isn't CSV ({error}): check its quotation marks."
        ) from None


def write_csv(path: Path, rows: Iterable[EventRow]) -> int:
    """Write events, of any number of recordings; returns their number. The length of a whole recording isn't written.

    Raises `EventTableError` if the file can't be written.
    """
    count = 0
    with written_whole(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for count, row in enumerate(rows, 1):  # noqa: B007
            times = ["", ""] if row.whole else [decimal_text(row.start_s), decimal_text(row.end_s)]
            texts = (row.annotator, row.version, row.licence, row.source)
            numbers = (row.channel, row.low_hz, row.high_hz)
            cells = [protected(row.recording), *times, protected(row.label), _cell(row.score)]
            table.writerow([*cells, *map(protected, texts), *map(_cell, numbers)])
    return count


def is_csv(header: str) -> bool:
    """Whether a file's first line names the columns of events, or says what separates them."""
    if header.startswith("sep="):
        return True
    names = {_plain(cell) for cell in next(csv.reader([header], delimiter=_delimiter(header)), [])}
    return all(names & set(_NAMES[field]) for field in ("start_s", "end_s", "label"))


def protected(text: str) -> str:
    """The text as no spreadsheet takes it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unprotected(text: str) -> str:
    """The text that `protected` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _cell(value: float | None) -> str:
    return "" if value is None else decimal_text(value)


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _columns(path: Path, names: list[str], recording: str, label_column: str) -> list[str]:
    """For each column the field that it holds, or what no field is called."""
    plain = [_plain(name) for name in names]
    fields = dict(_NAMES)
    if label_column:
        fields["label"] = (_plain(label_column),)
    where: dict[int, str] = {}
    for field, candidates in fields.items():
        if chosen := next((name for name in candidates if name in plain), None):
            where.setdefault(plain.index(chosen), field)
    for field in ("start_s", "end_s", "label", *(() if recording else ("recording",))):
        if field not in where.values():
            there = ", ".join(shown(name) for name in names[:20]) or "nothing"
            wanted = "--label-column" if field == "label" and label_column else f"“{fields[field][0]}”"
            raise EventTableError(
                f"{shown(path.name)}, line 1: no column is {wanted}; there are {there}. Name the columns "
                "path,start_s,end_s,label, or give another --format."
            )
    return [where.get(index, f"column {index}") for index in range(len(names))]


def _row(
    place: Place, columns: list[str], cells: list[str], recording: str, on_refused: OnRefused | None
) -> Iterator[EventRow]:
    with refusals_to(on_refused):
        yield _event(place, columns, cells, recording)


def _event(place: Place, columns: list[str], cells: list[str], recording: str) -> EventRow:
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise place.refused(
            f"the row has {len(cells)} cells, but the header {len(columns)}: put quotation marks around a cell with a "
            "comma in it, such as a decimal one."
        )
    fields = {field: unprotected(cell) for field, cell in zip(columns, cells, strict=False)}
    if not fields.get("recording", "").strip():
        fields["recording"] = recording
    is_whole = not fields.get("start_s", "").strip() and not fields.get("end_s", "").strip()
    return event_row(place, fields, whole=is_whole)
