"""A folder of audio files → pairs: what stands beside each file in a `.txt` or `.json`, or else its folder's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from clapboard.errors import TrainingError
from training.corpus.pairs import Fields, Pair, read_fields, unique

AUDIO_SUFFIXES = frozenset(
    {
        *(".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka"),
        *(".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma", ".wv"),
    }
)


def folder_pairs(folder: Path) -> Iterator[Pair]:
    """The folder's audio files, also those in folders below, by path.

    `.txt`: a caption a line; `.json`: named fields. In a folder where no audio file has either, the folder's name is
    the tag of each. Raises `TrainingError` if a file of texts can't be read.
    """
    for place in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        files = sorted(file for file in place.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES)
        said = {file: _beside(file) for file in files}
        by_folder = Fields((), (place.absolute().name,), "", {})
        nothing = Fields((), (), "", {}) if any(said.values()) else by_folder
        for file in files:
            yield (said[file] or nothing).pair(file.relative_to(folder).as_posix(), file)


def _beside(file: Path) -> Fields | None:
    """What the files of the same stem say; None if there are none."""
    found = [read(beside) for suffix, read in _READERS.items() if (beside := file.with_suffix(suffix)).is_file()]
    if not found:
        return None
    captions = unique([text for one in found for text in one.captions])
    return Fields(captions, found[-1].tags, found[-1].group, found[-1].about)


def _captions_of(file: Path) -> Fields:
    return Fields(unique(_content(file).splitlines()), (), "", {})


def _fields_of(file: Path) -> Fields:
    try:
        row = json.loads(_content(file))
    except ValueError:
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
