"""A folder of audio files → pairs: what stands beside each file in a `.txt` or `.json`, or else its folder's name."""

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
    """The folder's audio files, also those in folders below, by path; what is hidden is left out.

    `.txt`: a caption a line; `.json`: named fields. In a folder where no audio file has either, the folder's name is
    the tag of each. Raises `TrainingError` if a folder or a file of texts can't be read.
    """
    for place in _places(folder):
        files = [file for file in sorted(place.iterdir()) if not file.name.startswith(".") and not file.is_dir()]
        by_suffix = {(file.stem, file.suffix.lower()): file for file in files}
        sounds = [file for file in files if is_audio(file)]
        said = {file: _beside(file.stem, by_suffix) for file in sounds}
        by_folder = Fields((), unique([name_of(place)]), "", {})
        nothing = Fields((), (), "", {}) if any(said.values()) else by_folder
        for file in sounds:
            yield (said[file] or nothing).pair(file.relative_to(folder).as_posix(), file)


def is_audio(file: Path) -> bool:
    """Whether its name says so."""
    return file.suffix.lower() in AUDIO_SUFFIXES


def name_of(folder: Path) -> str:
    """What the folder is called, also where `..` or nothing was given."""
    return folder.name if folder.name not in {"", ".."} else folder.resolve().name


def _places(folder: Path) -> Iterator[Path]:
    """The folder and those below by path, also behind links, but each once."""
    seen = set()
    for place, below, _ in os.walk(folder, followlinks=True, onerror=_refuse):
        real = Path(place).resolve()
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            seen.add(real)
            yield Path(place)


def _refuse(error: OSError) -> NoReturn:
    raise TrainingError(f"{error.filename} can't be read: {error.strerror}.") from error


def _beside(stem: str, by_suffix: Mapping[tuple[str, str], Path]) -> Fields | None:
    """What the files of the same stem say; None if there are none."""
    found = [read(file) for suffix, read in _READERS.items() if (file := by_suffix.get((stem, suffix)))]
    if not found:
        return None
    captions = unique([text for one in found for text in one.captions])
    return Fields(captions, found[-1].tags, found[-1].group, found[-1].about)


def _captions_of(file: Path) -> Fields:
    return Fields(unique(_content(file).splitlines()), (), "", {})


def _fields_of(file: Path) -> Fields:
    try:
        row = json.loads(_content(file))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise TrainingError(f'{file} is no JSON object: write one such as {{"caption": "a dog barks"}}, or remove it.')
    return read_fields(row, str(file))


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise TrainingError(f"{file} can't be read: {reason}.") from error


_READERS = {".txt": _captions_of, ".json": _fields_of}
