"""Pairs of WebDataset tar shards: members with the same stem are one sample, its audio with a `.txt` or `.json`."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys, tar_file_expander

from clapboard.errors import SourceError, TrainingError
from training.corpus.folders import AUDIO_SUFFIXES
from training.corpus.pairs import Audio, Fields, Pair, as_text, read_fields, unique

_END_BYTES = 1024
_COMPRESSED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
)  # the first bytes of gzip, bzip2 and xz, whose own readers notice a truncated file


def shard_paths(pattern: str) -> list[Path]:
    """Expands a path with braces, such as `shard-{000000..000009}.tar`, to the shards' paths.

    Raises `TrainingError` if one doesn't exist.
    """
    paths = [Path(path) for path in expand_urls(pattern)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise TrainingError(
            f"{len(missing)} of {len(paths)} shards don't exist, such as {missing[0]}: check their path."
        )
    return paths


def tar_pairs(shards: list[Path]) -> Iterator[Pair]:
    """The pairs of the shards, in order, one in memory at a time.

    Raises `TrainingError` for a shard that is damaged, or that has the same member twice.
    """
    for shard in shards:
        try:
            # Opened here, because webdataset doesn't close a shard that it can't read.
            with shard.open("rb") as stream:
                _require_end(stream)
                members = tar_file_expander([{"url": str(shard), "stream": stream}])
                for sample in group_by_keys(members):
                    yield _pair(shard, sample)
        except (tarfile.TarError, OSError) as error:
            raise TrainingError(
                f"Shard {shard} is damaged and can't be read to its end: copy it again, or make it again."
            ) from error
        except ValueError as error:
            member = str(error.args[0]).partition(": duplicate file name")[0]
            raise TrainingError(
                f"Shard {shard} has {member} twice, ignoring case: make it again with one name for each file."
            ) from error


def _require_end(stream: IO[bytes]) -> None:
    """Raises `TarError` if the zeros at the end are missing: a tar cut between two members looks like a shorter one."""
    is_compressed = stream.read(6).startswith(_COMPRESSED)
    start = max(0, stream.seek(0, os.SEEK_END) - _END_BYTES)
    stream.seek(start)
    end = stream.read()
    stream.seek(0)
    if not is_compressed and (len(end) < _END_BYTES or any(end)):
        raise tarfile.ReadError("no end")


def _pair(shard: Path, sample: dict[str, Any]) -> Pair:
    key = as_text(sample["__key__"])
    where = f"{key} in {shard}"
    sounds: dict[str, bytes] = {}
    captions: list[str] = []
    fields = Fields((), (), "", {})
    for member, content in sample.items():
        if member.startswith("__"):
            continue
        name = PurePosixPath(f"{key}.{member}")
        suffix = name.suffix.lower()
        if suffix in AUDIO_SUFFIXES:
            sounds[name.name] = content
        elif suffix == ".txt":
            captions += content.decode("utf-8", "replace").splitlines()
        elif suffix == ".json":
            fields = read_fields(_object(content, where), where)
    if len(sounds) > 1:
        raise TrainingError(
            f"{where} has several sounds ({', '.join(sounds)}): files are one sample if their names are the same up to "
            "the first dot, so make the shard again with other names."
        )
    audio: Audio = next(iter(sounds.values())) if sounds else partial(_refuse, where)
    texts = unique([*captions, *fields.captions])
    return Pair(f"{as_text(shard.name)}/{key}", audio, texts, fields.tags, fields.group, fields.about)


def _refuse(where: str) -> NoReturn:
    raise SourceError(
        f"{where} has no sound beside its texts: sort the tar by name, so that the files of a sample are adjacent."
    )


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise TrainingError(f"{where} has a .json that isn't a JSON object: make the shard again.")
    return row
