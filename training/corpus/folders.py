"""Pairs of a folder of audio files, with the texts of the `.txt` or `.json` beside each, or with the folder's name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from clapboard.errors import TrainingError
from training.corpus.pairs import Fields, Pair, read_fields, unique

AUDIO_SUFFIXES = frozenset(
    {
        *(".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka"),
        *(".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma", ".wv"),
    }
)


def folder_pairs(folder: Path) -> Iterator[Pair]:
    """The pairs of the audio files in the folder and below it, in the order of their paths, without hidden files.

    A `.txt` has a caption a line, a `.json` has named fields. In a folder where no audio file has either, the folder's
    name is the tag of each. Raises `TrainingError` if a folder or a file of texts can't be read.
    """
    for place in _places(folder):
        files = [file for file in sorted(place.iterdir()) if not file.name.startswith(".") and not file.is_dir()]
        by_suffix = {(file.stem, file.suffix.lower()): file for file in files}
        sounds = [file for file in files if is_audio(file)]
        fields = {file: _fields_beside(file.stem, by_suffix) for file in sounds}
        folder_name = Fields((), unique([name_of(place)]), "", {})
        default = Fields((), (), "", {}) if any(fields.values()) else folder_name
        for file in sounds:
            yield (fields[file] or default).pair(file.relative_to(folder).as_posix(), file)


def is_audio(file: Path) -> bool:
    """Whether the file's name has the suffix of an audio format."""
    return file.suffix.lower() in AUDIO_SUFFIXES


def name_of(folder: Path) -> str:
    """The folder's name, resolved where the path is `.`, ends in `..` or is empty."""
    return folder.name if folder.name not in {"", ".."} else folder.resolve().name


def _places(folder: Path) -> Iterator[Path]:
    """The folder and those below it in the order of their paths, each once; links are followed."""
    seen = set()
    for place, below, _ in os.walk(folder, followlinks=True, onerror=_refuse):
        real = Path(place).resolve()
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            seen.add(real)
            yield Path(place)


def _refuse(error: OSError) -> NoReturn:
    raise TrainingError(f"{error.filename} can't be read: {error.strerror}.") from error


def _fields_beside(stem: str, by_suffix: Mapping[tuple[str, str], Path]) -> Fields | None:
    """The fields in the text files with this stem; None if there are none."""
    parts = [read(file) for suffix, read in _READERS.items() if (file := by_suffix.get((stem, suffix)))]
    if not parts:
        return None
    captions = unique([text for part in parts for text in part.captions])
    return Fields(captions, parts[-1].tags, parts[-1].group, parts[-1].about)


def _captions_of(file: Path) -> Fields:
    return Fields(unique(_content(file).splitlines()), (), "", {})


def _fields_of(file: Path) -> Fields:
    try:
        row = json.loads(_content(file))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise TrainingError(
            f'{file} is not a JSON object: write one such as {{"caption": "a dog barks"}}, or remove it.'
        )
    return read_fields(row, str(file))


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
        raise TrainingError(f"{file} can't be read: {reason}.") from error


_READERS = {".txt": _captions_of, ".json": _fields_of}
