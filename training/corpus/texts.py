"""Reads the texts of a data set without its sounds."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clapboard.labels.captions import Captioner
from clapboard.plurals import counted
from training.corpus.manifest import read_manifest, require_sizes
from training.corpus.shards import TEXTS
from training.corpus.stream import damaged


class SampleTexts(NamedTuple):
    """The captions and tags of a sample."""

    captions: tuple[str, ...]
    tags: tuple[str, ...]


def captions_of(folder: Path, captioner: Captioner, seed: int) -> Iterator[str]:
    """All captions in the order of the shards; for a sample that has none, one made of its tags.

    Raises `TrainingError` if the folder isn't a complete data set, or a shard is damaged.
    """
    rng = np.random.default_rng(seed)
    for texts in texts_of(folder):
        yield from texts.captions or [captioner.caption(texts.tags, rng)]


def texts_of(folder: Path) -> Iterator[SampleTexts]:
    """The texts of each sample, in the order of the shards. Raises `TrainingError` as `captions_of` does."""
    manifest = read_manifest(folder)
    require_sizes(folder, manifest)
    for shard in manifest.shards:
        path = folder / shard.name
        try:
            shard_texts = list(_texts_in(path))
        except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
            raise damaged(path, "its texts can't be read") from error
        if len(shard_texts) != shard.samples:
            raise damaged(path, f"texts of {counted(len(shard_texts), 'sample')} left of {shard.samples}")
        yield from shard_texts


def _texts_in(shard: Path) -> Iterator[SampleTexts]:
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name.endswith(TEXTS) else None
            if content is not None:
                texts = json.load(content)
                yield SampleTexts(tuple(texts["captions"]), tuple(texts["tags"]))
