"""The formats of event tables: which one a file has, reading and writing it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from pathlib import Path

from clapboard.errors import EventTableError
from clapboard.event_tables.aoef import read_aoef
from clapboard.event_tables.audacity import is_audacity, read_audacity, write_audacity
from clapboard.event_tables.csv_table import is_csv, read_csv, write_csv
from clapboard.event_tables.event_row import EventRow, OnRefused, Place, checked, refusals_to, shown
from clapboard.event_tables.hugging_face import read_hugging_face
from clapboard.event_tables.raven import is_raven, read_raven, write_raven
from clapboard.event_tables.recordings import recording_of_table, safe_name
from clapboard.event_tables.text_files import lines


class Format(enum.StrEnum):
    """What a table of text is written in."""

    RAVEN = "raven"
    AUDACITY = "audacity"
    CSV = "csv"


class DataSetFormat(enum.StrEnum):
    """What events of many recordings are written in, together with what is known of the recordings."""

    AOEF = "aoef"
    HF = "hf"


_ENDINGS = {Format.RAVEN: ".selections.txt", Format.AUDACITY: ".labels.txt", Format.CSV: ".events.csv"}


def read_events(
    path: Path,
    file_format: Format | DataSetFormat | None = None,
    *,
    recording: str = "",
    label_column: str = "",
    on_refused: OnRefused | None = None,
) -> Iterator[EventRow]:
    """The events of a table or data set, row by row; without a format, in the one that the file shows.

    Where a table names no recording, its events are of `recording`, or else of the one that the file is named after.
    Raises `EventTableError` for a file that can't be read, and `RowRefused` for a row that can't be used, unless
    `on_refused` takes it.
    """
    file_format = file_format or format_of(path)
    if file_format is DataSetFormat.HF:
        return read_hugging_face(path, on_refused=on_refused)
    if file_format is DataSetFormat.AOEF:
        return read_aoef(path, label_column=label_column, on_refused=on_refused)
    if file_format is Format.CSV:
        return read_csv(path, recording=recording, label_column=label_column, on_refused=on_refused)
    named = recording or recording_of_table(path.name)
    if file_format is Format.AUDACITY:
        return read_audacity(path, recording=named, on_refused=on_refused)
    return read_raven(path, recording=named, label_column=label_column, on_refused=on_refused)


def write_events(
    path: Path, rows: Iterable[EventRow], file_format: Format, *, on_refused: OnRefused | None = None
) -> int:
    """Write a table, of one recording unless it is CSV; returns the number of its events. The file appears complete.

    Raises `EventTableError` if it can't be written, and `RowRefused` for a row that couldn't be read again, unless
    `on_refused` takes it.
    """
    checked_rows = _checked(rows, path, on_refused)
    if file_format is Format.CSV:
        return write_csv(path, checked_rows)
    of_one = _of_one_recording(checked_rows, path)
    return write_raven(path, of_one) if file_format is Format.RAVEN else write_audacity(path, of_one)


def format_of(path: Path) -> Format | DataSetFormat:
    """The format of a file, by its first line, or of a folder. Raises `EventTableError` if it has none of them."""
    if path.is_dir():
        return DataSetFormat.HF
    if path.suffix.lower() == ".json":  # its first line may be the whole of it
        return DataSetFormat.AOEF
    text = next((text for _, text in lines(path)), "")
    if is_raven(text):
        return Format.RAVEN
    if is_csv(text):
        return Format.CSV
    if is_audacity(text) or (not text.strip() and path.name.lower().endswith(".txt")):
        return Format.AUDACITY  # a track without labels is an empty file
    raise EventTableError(
        f"{shown(path.name)}, line 1: it is no Raven table, no Audacity labels and no CSV with a header: give --format."
    )


def format_named(name: str) -> Format | DataSetFormat:
    """The format that people call so. Raises `EventTableError` if there is none."""
    formats = {str(one): one for one in (*Format, *DataSetFormat)}
    if name not in formats:
        raise EventTableError(f"There is no format “{shown(name)}”: choose one of {', '.join(formats)}.")
    return formats[name]


def table_name(recording: str, file_format: Format) -> str:
    """What the table of one recording is called, such as «a.wav.selections.txt»: never a path to somewhere else."""
    return safe_name(recording) + _ENDINGS[file_format]


def _checked(rows: Iterable[EventRow], path: Path, on_refused: OnRefused | None) -> Iterator[EventRow]:
    for count, row in enumerate(rows, 1):
        with refusals_to(on_refused):
            yield checked(row, Place(path.name, count))


def _of_one_recording(rows: Iterable[EventRow], path: Path) -> Iterator[EventRow]:
    first = None
    for row in rows:
        first = first or row.recording
        if row.recording != first:
            raise EventTableError(
                f"{shown(path.name)} would have events of several recordings, and its format has room for one's: "
                "write a table for each."
            )
        yield row
