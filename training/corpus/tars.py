"""WebDataset tar shards → pairs: members of one stem are one sample, its audio with a `.txt` or `.json`."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys, tar_file_expander

from clapboard.errors import TrainingError
from training.corpus.folders import AUDIO_SUFFIXES
from training.corpus.pairs import Fields, Pair, read_fields, unique


def shard_paths(pattern: str) -> list[Path]:
    """The shards that a path with braces names, such as `shard-{000000..000009}.tar`.

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
    """The shards' samples in their order, one in memory at a time. Raises `TrainingError` for a damaged shard."""
    for shard in shards:
        try:
            # Opened here, since webdataset would leave a shard open that it can't read.
            with shard.open("rb") as stream:
                members = tar_file_expander([{"url": str(shard), "stream": stream}])
                for sample in group_by_keys(members):
                    yield _pair(shard, sample)
        except (tarfile.TarError, OSError) as error:
            raise TrainingError(
                f"Shard {shard} is damaged and can't be read to its end: make or copy it anew."
            ) from error


def _pair(shard: Path, sample: dict[str, Any]) -> Pair:
    key = sample["__key__"]
    audio = b""
    captions: list[str] = []
    fields = Fields((), (), "", {})
    for member, content in sample.items():
        if member.startswith("__"):
            continue
        suffix = PurePosixPath(f"{key}.{member}").suffix.lower()
        if suffix in AUDIO_SUFFIXES:
            audio = content
        elif suffix == ".txt":
            captions += content.decode("utf-8", "replace").splitlines()
        elif suffix == ".json":
            fields = read_fields(_object(content, f"{key} in {shard}"), f"{key} in {shard}")
    texts = unique([*captions, *fields.captions])
    return Pair(f"{shard.name}/{key}", audio, texts, fields.tags, fields.group, fields.about)


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(content)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise TrainingError(f"{where} has a .json that is no JSON object: make the shard anew.")
    return row
