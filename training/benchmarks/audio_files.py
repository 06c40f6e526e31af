"""Finds the audio files of data sets by name, in any format, and reads the tables that list them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from clapboard.errors import TrainingError

_VIDEO_ENDINGS = frozenset({".mkv", ".mp4", ".webm"})
_ENDINGS = _VIDEO_ENDINGS | {".aac", ".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}

# The factors and formats with which seconds are written in file names.
_SECONDS = ((1, "d"), (1, "06d"), (1, ".3f"), (1000, "d"))


class AudioFiles:
    """The audio files below some folders, listed once: asking the disk for 200,000 names one by one takes minutes.

    Of files with the same name the first one counts, and a video, which downloaders leave behind, only if there is no
    other.
    """

    def __init__(self, *folders: Path) -> None:
        self._by_stem: dict[str, Path] = {}
        for path in (path for folder in folders for path in _walk(folder, set())):
            first = self._by_stem.setdefault(path.stem, path)
            if _is_video(first) and not _is_video(path):
                self._by_stem[path.stem] = path

    def find(self, *stems: str) -> Path | None:
        """The file with the first of these names (without suffix) that exists; None if there is none."""
        return next((self._by_stem[stem] for stem in stems if stem in self._by_stem), None)


def youtube_stems(video: str, start_s: int, end_s: int, *, is_only: bool) -> tuple[str, ...]:
    """The names that downloaders give to an excerpt, without suffix: `ID_30`, `YID_30.000_40.000`, `ID_000030`, ….

    The ID alone is one of them if the excerpt `is_only` one of its video.
    """
    spans = [(format(start_s * factor, style), format(end_s * factor, style)) for factor, style in _SECONDS]
    endings = [f"_{start}" for start, _ in spans] + [f"_{start}_{end}" for start, end in spans] + [""] * is_only
    return tuple(f"{sign}{video}{ending}" for ending in endings for sign in ("", "Y"))


def read_table(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads a CSV with a header. Raises `TrainingError` if it can't be read or lacks a column or a value."""
    rows = [*_rows(table)]
    header = rows[0] if rows else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise TrainingError(
            f"Table {table} has no column “{missing[0]}”: download it again from the data set's authors."
        )
    records = [dict(zip(header, row, strict=False)) for row in rows[1:]]
    for line, record in enumerate(records, start=2):
        if any(name not in record for name in columns):
            raise TrainingError(f"Table {table} ends in the middle of row {line}: download it again.")
    return records


def read_rows(table: Path, num_columns: int) -> list[list[str]]:
    """Reads a CSV without a header. Raises `TrainingError` if it can't be read or a row has too few columns."""
    rows = [*_rows(table)]
    for line, row in enumerate(rows, start=1):
        if len(row) < num_columns:
            raise TrainingError(
                f"Table {table} has {len(row)} columns in row {line}, not {num_columns}: download it again."
            )
    return rows


def _rows(table: Path) -> Iterator[list[str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            yield from (row for row in csv.reader(file) if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't CSV in UTF-8"
        raise TrainingError(f"Table {table} can't be read: {reason}.") from error


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in _VIDEO_ENDINGS


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The audio files below the folder, each folder once; links are followed. A missing folder has none."""
    if not folder.is_dir():
        return
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _walk(Path(entry.path), seen)
            elif Path(entry.name).suffix.lower() in _ENDINGS:
                yield Path(entry.path)
