"""All that a data set says, without its sounds."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clapboard.captions import Captioner
from training.corpus.manifest import read_manifest, require_sizes
from training.corpus.shards import TEXTS


def captions_of(folder: Path, captioner: Captioner, seed: int) -> Iterator[str]:
    """Every caption in the order of the shards, and one made of the tags where there is none.

    Raises `TrainingError` if the folder is no complete data set.
    """
    manifest = read_manifest(folder)
    require_sizes(folder, manifest)
    rng = np.random.default_rng(seed)
    for shard in manifest.shards:
        with tarfile.open(folder / shard.name, "r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith(TEXTS) else None
                if content is not None:
                    texts = json.load(content)
                    yield from texts["captions"] or [captioner.caption(texts["tags"], rng)]
