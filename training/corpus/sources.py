"""Opens a source of pairs, whose kind is recognised by its name and content."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from clapboard.errors import TrainingError
from training.corpus.folders import folder_pairs, is_audio, name_of
from training.corpus.hugging_face import INFO_FILES, hugging_face_pairs
from training.corpus.listed_pairs import csv_pairs, jsonl_pairs
from training.corpus.manifest import MANIFEST, SPLITS
from training.corpus.pairs import Pair
from training.corpus.projects import LabelStudioAccess, project_pairs
from training.corpus.tars import shard_paths, tar_pairs

_PROJECT = re.compile(r"project:([1-9][0-9]*)")


@dataclass(frozen=True)
class Source:
    """A source of pairs: `given` is the name as typed, and `name` is that without its folders."""

    given: str
    name: str
    kind: str
    pairs: Callable[[], Iterator[Pair]] = field(repr=False)


def open_source(given: str, label_studio: Callable[[], LabelStudioAccess]) -> Source:
    """Opens a folder, CSV, JSONL, Hugging Face data set on disk, tar shards (braces may name several), or `project:N`,
    for which `label_studio` is called.

    Pairs are read only when they are asked for. Raises `TrainingError` for any other source.
    """
    if project := _PROJECT.fullmatch(given):
        return Source(given, given, "Label Studio", partial(project_pairs, label_studio(), int(project[1])))
    path = Path(given)
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return Source(given, path.name, "tar shards", partial(tar_pairs, shard_paths(given)))
    if path.is_dir():
        return _open_folder(given, path)
    if suffix in _TABLES and path.is_file():
        return Source(given, path.name, suffix.removeprefix(".").upper(), partial(_TABLES[suffix], path))
    reason = "is none of these" if path.exists() else "doesn't exist"
    raise TrainingError(
        f"Source {given} {reason}: name a folder, a .csv, a .jsonl, a Hugging Face data set's folder, .tar shards, or "
        "project:N."
    )


_TABLES = {".csv": csv_pairs, ".jsonl": jsonl_pairs, ".ndjson": jsonl_pairs}


def _open_folder(given: str, folder: Path) -> Source:
    name = name_of(folder)
    if any((folder / file).is_file() for file in INFO_FILES):
        return Source(given, name, "Hugging Face", partial(hugging_face_pairs, folder))
    splits = [folder / split for split in SPLITS if (folder / split / MANIFEST).is_file()]
    shards = [file for place in splits or [folder] for file in sorted(place.glob("*.tar")) if file.is_file()]
    if not shards:
        return Source(given, name, "folder", partial(folder_pairs, folder))
    if any(is_audio(file) for file in folder.rglob("*")):
        raise TrainingError(f"Source {given} holds both .tar shards and sounds: give each kind a folder of its own.")
    return Source(given, name, "tar shards", partial(tar_pairs, shards))
