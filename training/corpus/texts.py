"""All that a data set says, without its sounds."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clapboard.captions import Captioner
from training.corpus.manifest import read_manifest, require_sizes
from training.corpus.shards import TEXTS
from training.corpus.stream import damaged


class Said(NamedTuple):
    """The captions and tags of a sample."""

    captions: tuple[str, ...]
    tags: tuple[str, ...]


def captions_of(folder: Path, captioner: Captioner, seed: int) -> Iterator[str]:
    """Every caption in the order of the shards, and one made of the tags where there is none.

    Raises `TrainingError` if the folder is no complete data set, or a shard is damaged.
    """
    rng = np.random.default_rng(seed)
    for said in texts_of(folder):
        yield from said.captions or [captioner.caption(said.tags, rng)]


def texts_of(folder: Path) -> Iterator[Said]:
    """What is said of each sample, in the order of the shards. Raises as `captions_of` does."""
    manifest = read_manifest(folder)
    require_sizes(folder, manifest)
    for shard in manifest.shards:
        path = folder / shard.name
        try:
            found = list(_texts_in(path))
        except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
            raise damaged(path, "its texts can't be read") from error
        if len(found) != shard.samples:
            raise damaged(path, f"the texts of {len(found)} samples are left of {shard.samples}")
        yield from found


def _texts_in(shard: Path) -> Iterator[Said]:
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name.endswith(TEXTS) else None
            if content is not None:
                texts = json.load(content)
                yield Said(tuple(texts["captions"]), tuple(texts["tags"]))
