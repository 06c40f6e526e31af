"""A data set's manifest. It is written last, so a folder that has one is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clapboard.errors import TrainingError

MANIFEST = "manifest.json"
Split = Literal["", "train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")


class Shard(BaseModel):
    """A tar file of samples."""

    model_config = ConfigDict(frozen=True)

    name: str
    samples: int
    bytes: int
    sha256: str


class ReadSource(BaseModel):
    """A source as it was given, its kind, and the number of its pairs."""

    model_config = ConfigDict(frozen=True)

    given: str
    kind: str
    pairs: int


class Unreadable(BaseModel):
    """A pair whose audio can't be read, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    error: str


class Manifest(BaseModel):
    """The contents of a folder of shards, and what its build found and dropped.

    `found`, `dropped`, `dropped_captions` and `unreadable` count the whole build; the other fields count this split.
    Tags without a word are counted among the dropped captions.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["clapboard-pairs-1"] = "clapboard-pairs-1"
    clapboard: str
    split: Split
    samples: int
    captions: int
    tags: int
    duration_s: float
    shards: tuple[Shard, ...]
    found: int
    dropped: dict[str, int]
    dropped_captions: dict[str, int]
    unreadable: tuple[Unreadable, ...]
    sources: tuple[ReadSource, ...]
    settings: dict[str, Any]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest to disk. Call it after all shards are written."""
    building = folder / f"{MANIFEST}.building"
    with building.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    building.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest.

    Raises `TrainingError` if the folder holds no complete data set, or one of another format.
    """
    file = folder / MANIFEST
    if not file.is_file():
        splits = [str(folder / split) for split in SPLITS if (folder / split / MANIFEST).is_file()]
        remedy = f"name one of its splits, {' or '.join(splits)}" if splits else "make one with `clapboard data build`"
        raise TrainingError(f"{folder} has no {MANIFEST}, so it isn't a complete data set: {remedy}.")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError(f"{file} can't be read as a data set's manifest: build the data set again.") from error


def data_sets_in(folder: Path) -> list[Path]:
    """The folder itself, or its splits if it has any. Raises `TrainingError` as `read_manifest` does."""
    splits = [folder / split for split in SPLITS if (folder / split / MANIFEST).is_file()]
    if (folder / MANIFEST).is_file() or not splits:
        read_manifest(folder)
        return [folder]
    return splits


def require_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises `TrainingError`, naming the first shard that is missing or has another size than was written."""
    for shard in manifest.shards:
        if fault := _size_fault(folder, shard):
            raise TrainingError(f"Shard {folder / shard.name} {fault}: copy it again, or rebuild the data set.")


def damages(folder: Path, manifest: Manifest, on_shard: Callable[[], None] = lambda: None) -> dict[str, str]:
    """What is wrong with each damaged shard, by name; every shard is read as a whole."""
    faults = {}
    for shard in manifest.shards:
        fault = _size_fault(folder, shard)
        if not fault and sha256_of_file(folder / shard.name) != shard.sha256:
            fault = "has other content than was written"
        if fault:
            faults[shard.name] = fault
        on_shard()
    return faults


def sha256_of_file(file: Path) -> str:
    """The SHA-256 of the file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _size_fault(folder: Path, shard: Shard) -> str:
    file = folder / shard.name
    if not file.is_file():
        return "is missing"
    size = file.stat().st_size
    return "" if size == shard.bytes else f"is damaged: it has {size} bytes instead of {shard.bytes}"
