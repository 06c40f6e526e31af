"""A data set's samples, epoch by epoch: streamed from its shards, shuffled, decoded ahead, the same for the same seed.

An epoch's order is drawn from the manifest's counts before anything is read, so that going on in its middle reads
nothing of what was heard before. Processes share it as pieces that differ by one sample at most.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clapboard.audio import Waveform, read
from clapboard.errors import AudioError, TrainingError
from training.corpus.manifest import read_manifest, require_sizes
from training.corpus.shards import SOUND, TEXTS

_AHEAD = 16
_SHARDS_INDEXED = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """A sound, `waveform` float32 `[T]` at 48 kHz, and what is said of it."""

    key: str
    waveform: Waveform
    captions: tuple[str, ...]
    tags: tuple[str, ...]


class _Place(NamedTuple):
    """A sample's shard, by its number, and its place in there."""

    shard: int
    nth: int


class _Members(NamedTuple):
    """A sample within its shard, in bytes from its beginning."""

    key: str
    sound_offset: int
    sound_bytes: int
    texts_offset: int
    texts_bytes: int


class PairStream:
    """One process's samples of a data set (one of `world_size`, by `rank`): no sample is in two, in none, or twice."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        shuffle_buffer: int = 1000,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 1,
    ) -> None:
        """Samples are drawn from the next `shuffle_buffer` ones, which takes no memory for their sounds; shards lie in
        random order too. `threads` decode ahead.

        Raises `TrainingError` if the folder is no complete data set, or a shard is missing or of another length.
        """
        if not 0 <= rank < world_size:
            raise TrainingError(f"Rank {rank} is none of {world_size}: number the processes from 0.")
        self._folder = folder
        self._manifest = read_manifest(folder)
        require_sizes(folder, self._manifest)
        self._seed = seed
        self._shuffle_buffer = max(1, shuffle_buffer)
        self._rank = rank
        self._start = rank * self.num_samples // world_size
        self._end = (rank + 1) * self.num_samples // world_size
        self._threads = threads
        self._members = lru_cache(maxsize=_SHARDS_INDEXED)(self._read_members)

    @property
    def num_samples(self) -> int:
        """Samples of the whole data set: of all processes together."""
        return self._manifest.samples

    def __len__(self) -> int:
        """This process's samples in an epoch."""
        return self._end - self._start

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Sample]:
        """The epoch's samples without the first `skip`: what a run that stopped after these would have heard next.

        Raises `TrainingError`, naming the shard, where one is damaged.
        """
        places = self._places(number)
        for _ in range(skip):
            next(places, None)
        with ThreadPoolExecutor(self._threads) as pool:
            coming: deque[Future[Sample]] = deque()
            try:
                for place in places:
                    coming.append(pool.submit(self._sample, place))
                    if len(coming) > _AHEAD:
                        yield coming.popleft().result()
                while coming:
                    yield coming.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _places(self, number: int) -> Iterator[_Place]:
        """This process's samples in the epoch's order."""
        rng = np.random.default_rng([self._seed, number, self._rank])
        buffer: list[_Place] = []
        for place in self._in_order_of_shards(number):
            if len(buffer) < self._shuffle_buffer:
                buffer.append(place)
                continue
            drawn = int(rng.integers(len(buffer)))
            yield buffer[drawn]
            buffer[drawn] = place
        for drawn in rng.permutation(len(buffer)):
            yield buffer[drawn]

    def _in_order_of_shards(self, number: int) -> Iterator[_Place]:
        """This process's piece of the epoch before its samples are shuffled: the shards' order is common to all."""
        passed = 0
        for shard in np.random.default_rng([self._seed, number]).permutation(len(self._manifest.shards)).tolist():
            count = self._manifest.shards[shard].samples
            for index in range(max(0, self._start - passed), min(count, self._end - passed)):
                yield _Place(shard, index)
            passed += count

    def _sample(self, place: _Place) -> Sample:
        shard = self._path(place.shard)
        members = self._members(place.shard)[place.nth]
        try:
            with shard.open("rb") as file:
                sound = _read_at(file, members.sound_offset, members.sound_bytes)
                texts = json.loads(_read_at(file, members.texts_offset, members.texts_bytes))
            waveform = read(io.BytesIO(sound), name=members.key)
            return Sample(members.key, waveform, tuple(texts["captions"]), tuple(texts["tags"]))
        except (OSError, ValueError, KeyError, TypeError, AudioError) as error:
            raise damaged(shard, f"sample {members.key} can't be read") from error

    def _read_members(self, number: int) -> list[_Members]:
        shard = self._path(number)
        try:
            with tarfile.open(shard, "r:") as tar:
                members = tar.getmembers()
        except (OSError, tarfile.TarError) as error:
            raise damaged(shard, "it can't be read as tar") from error
        found = [
            _Members(sound.name.removesuffix(SOUND), sound.offset_data, sound.size, texts.offset_data, texts.size)
            for sound, texts in zip(members[::2], members[1::2], strict=False)
            if sound.name.endswith(SOUND) and texts.name == sound.name.removesuffix(SOUND) + TEXTS
        ]
        if 2 * len(found) != len(members) or len(found) != self._manifest.shards[number].samples:
            raise damaged(shard, f"{len(found)} samples are left of {self._manifest.shards[number].samples}")
        return found

    def _path(self, number: int) -> Path:
        return self._folder / self._manifest.shards[number].name


def _read_at(file: io.BufferedReader, offset: int, num_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(num_bytes)


def damaged(shard: Path, reason: str) -> TrainingError:
    """What to raise for a data set's shard that isn't what was written."""
    return TrainingError(
        f"Shard {shard} is damaged ({reason}): copy it anew; `clapboard data verify {shard.parent}` checks all."
    )
