"""Reads the recordings of ESC-10 into memory."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clapboard.audio.windows import Waveform, read
from clapboard.errors import ClapboardError


@dataclass(frozen=True)
class Clip:
    """A row of ESC-10's table: a file, its fold and kind, and its attribution."""

    path: Path
    fold: int
    kind: str
    freesound_id: str
    licence: str
    author: str


@dataclass(frozen=True)
class Recording:
    """Decoded sound of one kind, `[T]` at 48 kHz."""

    kind: str
    waveform: Waveform


def list_clips(esc10: Path, folds: Iterable[int]) -> list[Clip]:
    """The clips of the given folds, in the order of the folder's `esc10.csv`.

    Raises `ClapboardError` if the folder has no such table.
    """
    table = esc10 / "esc10.csv"
    if not table.is_file():
        raise ClapboardError(f"Folder {esc10} has no esc10.csv: give the folder that holds ESC-10's table and audio/.")
    wanted = set(folds)
    with table.open(newline="", encoding="utf-8") as rows:
        return [
            Clip(
                esc10 / "audio" / row["filename"],
                int(row["fold"]),
                row["category"],
                row["freesound_id"],
                row["licence"],
                row["author"],
            )
            for row in csv.DictReader(rows)
            if int(row["fold"]) in wanted
        ]


def load_recordings(clips: Iterable[Clip]) -> list[Recording]:
    """Decodes the clips. Raises `AudioError` if one can't be decoded."""
    return [Recording(clip.kind, read(clip.path)) for clip in clips]
