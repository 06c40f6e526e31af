"""Writes samples to tar shards, which are identical to the byte whenever and wherever they are written."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from training.corpus.manifest import Shard, sha256_of_file

SOUND, TEXTS = ".flac", ".json"
_KEY_DIGITS = 16


@dataclass
class KeptSample:
    """A sample to be written: its sound as FLAC in `file`, and the texts of all pairs with that sound."""

    file: Path
    sha256: str  # of the 16-bit samples at 48 kHz
    duration_s: float
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    group: str
    about: dict[str, str]

    @property
    def key(self) -> str:
        """The name of the sample's members in a shard; it depends on the sound alone."""
        return self.sha256[:_KEY_DIGITS]

    def texts(self) -> bytes:
        """The sample's texts as JSON."""
        content = self.about | {
            "captions": self.captions,
            "tags": self.tags,
            "group": self.group or self.key,
            "sha256": self.sha256,
            "duration_s": round(self.duration_s, 6),
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()


def write_shards(
    folder: Path, samples: Sequence[KeptSample], samples_per_shard: int, on_sample: Callable[[], None] = lambda: None
) -> list[Shard]:
    """Writes the samples in order and returns the shards. Each sample's own file is deleted once its shard is on disk.

    The shards hold no times, owners or modes of the files from which they are made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, part in enumerate(_parts(samples, samples_per_shard)):
        name = f"shard-{number:06}.tar"
        with (folder / name).open("wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for sample in part:
                    with sample.file.open("rb") as sound:
                        _add(tar, sample.key + SOUND, sound, sample.file.stat().st_size)
                    texts = sample.texts()
                    _add(tar, sample.key + TEXTS, io.BytesIO(texts), len(texts))
                    on_sample()
            stream.flush()
            os.fsync(stream.fileno())
        for sample in part:
            sample.file.unlink()
        written = folder / name
        shards.append(Shard(name=name, samples=len(part), bytes=written.stat().st_size, sha256=sha256_of_file(written)))
    return shards


def _parts(samples: Sequence[KeptSample], size: int) -> Iterator[Sequence[KeptSample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], num_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = num_bytes
    tar.addfile(member, content)
