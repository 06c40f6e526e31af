"""Audio below a folder by its name, whatever format somebody has it in; and the tables that list it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from clapboard.errors import TrainingError

_VIDEO_ENDINGS = frozenset({".mkv", ".mp4", ".webm"})
_ENDINGS = _VIDEO_ENDINGS | {".aac", ".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}

# Factors and formats in which seconds stand in files' names.
_SECONDS = ((1, "d"), (1, "06d"), (1, ".3f"), (1000, "d"))


class AudioFiles:
    """The audio files below some folders, read once: asking the disk for 200,000 names one by one takes minutes.

    Of files with the same name the first one counts, and a video only where there is no other: downloaders leave them.
    """

    def __init__(self, *folders: Path) -> None:
        self._by_stem: dict[str, Path] = {}
        for path in (path for folder in folders for path in _walk(folder, set())):
            held = self._by_stem.setdefault(path.stem, path)
            if _is_video(held) and not _is_video(path):
                self._by_stem[path.stem] = path

    def find(self, *stems: str) -> Path | None:
        """The first file with one of the names (without its ending); None if there is none."""
        return next((self._by_stem[stem] for stem in stems if stem in self._by_stem), None)


def youtube_stems(video: str, start_s: int, end_s: int, *, is_only: bool) -> tuple[str, ...]:
    """What downloaders call an excerpt of a video, without the ending: `ID_30`, `YID_30.000_40.000`, `ID_000030`, ….

    The video's name alone is the excerpt's if it `is_only` one of that video.
    """
    spans = [(format(start_s * factor, style), format(end_s * factor, style)) for factor, style in _SECONDS]
    endings = [f"_{start}" for start, _ in spans] + [f"_{start}_{end}" for start, end in spans] + [""] * is_only
    return tuple(f"{sign}{video}{ending}" for ending in endings for sign in ("", "Y"))


def read_table(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV with a header. Raises `TrainingError` if it can't be read or lacks a column or a value."""
    rows = [*_rows(table)]
    header = rows[0] if rows else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise TrainingError(
            f"Table {table} has no column “{missing[0]}”: download it anew from the data set's authors."
        )
    found = [dict(zip(header, row, strict=False)) for row in rows[1:]]
    for line, row in enumerate(found, start=2):
        if any(name not in row for name in columns):
            raise TrainingError(f"Table {table} ends in the middle of row {line}: download it anew.")
    return found


def read_rows(table: Path, num_columns: int) -> list[list[str]]:
    """The rows of a CSV without a header. Raises `TrainingError` if it can't be read or a row has fewer columns."""
    rows = [*_rows(table)]
    for line, row in enumerate(rows, start=1):
        if len(row) < num_columns:
            raise TrainingError(
                f"Table {table} has {len(row)} columns in row {line}, not {num_columns}: download it anew."
            )
    return rows


def _rows(table: Path) -> Iterator[list[str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            yield from (row for row in csv.reader(file) if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV in UTF-8"
        raise TrainingError(f"Table {table} can't be read: {reason}.") from error


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in _VIDEO_ENDINGS


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Audio files below the folder, also behind links, each folder once. A folder that isn't there holds none."""
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
