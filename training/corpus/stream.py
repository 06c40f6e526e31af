"""Streams a data set's samples from its shards, epoch by epoch, shuffled by a seed and decoded ahead.

An epoch's order is drawn from the counts in the manifest before anything is read, so that a run that continues in the
middle of an epoch doesn't read the samples before. Processes get equal parts of an epoch, give or take one sample.
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

from clapboard.audio.windows import Waveform, read
from clapboard.errors import AudioError, TrainingError
from clapboard.plurals import counted
from training.corpus.manifest import read_manifest, require_sizes
from training.corpus.shards import SOUND, TEXTS

_AHEAD = 16
_SHARDS_INDEXED = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """A sound, `waveform` float32 `[T]` at 48 kHz, and its texts."""

    key: str
    waveform: Waveform
    captions: tuple[str, ...]
    tags: tuple[str, ...]


class _Place(NamedTuple):
    """The number of a sample's shard, and its place in that shard."""

    shard: int
    nth: int


class _Members(NamedTuple):
    """Where a sample's members lie in their shard, in bytes from its beginning."""

    key: str
    sound_offset: int
    sound_bytes: int
    texts_offset: int
    texts_bytes: int


class PairStream:
    """The samples of one process (`rank` of `world_size`); each sample of the data set is in exactly one process."""

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
        """Shards come in random order, and each sample is drawn from the next `shuffle_buffer` ones, which are decoded
        only once they are drawn. `threads` decode ahead.

        Raises `TrainingError` if the folder isn't a complete data set, or a shard is missing or has another size.
        """
        if not 0 <= rank < world_size:
            raise TrainingError(f"Rank {rank} doesn't exist among {world_size} processes: number them from 0.")
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
        """The number of samples in the whole data set, over all processes."""
        return self._manifest.samples

    def __len__(self) -> int:
        """The number of this process's samples in an epoch."""
        return self._end - self._start

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Sample]:
        """The epoch's samples without the first `skip`, for a run that stopped after those.

        Raises `TrainingError`, naming the shard, if one is damaged.
        """
        places = self._places(number)
        for _ in range(skip):
            next(places, None)
        with ThreadPoolExecutor(self._threads) as pool:
            pending: deque[Future[Sample]] = deque()
            try:
                for place in places:
                    pending.append(pool.submit(self._sample, place))
                    if len(pending) > _AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _places(self, number: int) -> Iterator[_Place]:
        """The places of this process's samples, in the epoch's order."""
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
        """This process's part of the epoch before samples are shuffled; all processes have the same order of shards."""
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
        samples = [
            _Members(sound.name.removesuffix(SOUND), sound.offset_data, sound.size, texts.offset_data, texts.size)
            for sound, texts in zip(members[::2], members[1::2], strict=False)
            if sound.name.endswith(SOUND) and texts.name == sound.name.removesuffix(SOUND) + TEXTS
        ]
        if 2 * len(samples) != len(members) or len(samples) != self._manifest.shards[number].samples:
            raise damaged(shard, f"{counted(len(samples), 'sample')} left of {self._manifest.shards[number].samples}")
        return samples

    def _path(self, number: int) -> Path:
        return self._folder / self._manifest.shards[number].name


def _read_at(file: io.BufferedReader, offset: int, num_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(num_bytes)


def damaged(shard: Path, reason: str) -> TrainingError:
    """The error to raise for a damaged shard."""
    return TrainingError(
        f"Shard {shard} is damaged ({reason}): copy it again. `clapboard data verify {shard.parent}` checks all shards."
    )
