"""The order of an epoch, going on in its middle, sharing it, and what it takes and does when a shard is damaged."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from clapboard.errors import TrainingError
from tests.training.corpus.recorded import data_set, noise
from training.corpus.manifest import read_manifest
from training.corpus.stream import PairStream, Sample

NUM_SAMPLES = 22


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 samples in 6 shards."""
    return data_set(tmp_path_factory.mktemp("stream"), NUM_SAMPLES)


def number(sample: Sample) -> int:
    """The seed of the sample's sound, as its caption tells it."""
    (caption,) = sample.captions
    return int(caption.removeprefix("sound number "))


def order(stream: PairStream, epoch: int = 0, skip: int = 0) -> list[int]:
    return [number(sample) for sample in stream.epoch(epoch, skip=skip)]


def test_every_sample_is_heard_once_an_epoch_as_it_was_recorded(folder: Path) -> None:
    stream = PairStream(folder, seed=0, shuffle_buffer=5)
    assert len(stream) == stream.num_samples == NUM_SAMPLES
    heard = list(stream.epoch(0))
    assert sorted(map(number, heard)) == list(range(NUM_SAMPLES))
    for sample in heard:
        assert sample.waveform.dtype == np.float32
        assert np.array_equal(sample.waveform, noise(number(sample), 0.05))
        assert sample.tags == ()
    assert len({sample.key for sample in heard}) == NUM_SAMPLES


def test_the_order_follows_from_seed_and_epoch_alone(folder: Path) -> None:
    first = order(PairStream(folder, seed=3, shuffle_buffer=5), 2)
    stream = PairStream(folder, seed=3, shuffle_buffer=5, threads=3)
    other = order(stream, 1)
    assert order(stream, 2) == first
    assert other != first
    assert order(PairStream(folder, seed=4, shuffle_buffer=5), 2) != first


def test_shards_come_in_another_order_each_epoch(folder: Path) -> None:
    stream = PairStream(folder, seed=0, shuffle_buffer=1)
    first, second = order(stream, 0), order(stream, 1)
    assert first != second
    assert sorted(first) == sorted(second)
    assert {*first[:4]} in [{*second[start : start + 4]} for start in range(NUM_SAMPLES)]


def test_the_buffer_mixes_samples_of_several_shards(folder: Path) -> None:
    shard_of = {}
    for shard in range(6):
        unmixed = order(PairStream(folder, seed=0, shuffle_buffer=1))[4 * shard : 4 * shard + 4]
        shard_of |= dict.fromkeys(unmixed, shard)
    mixed = [shard_of[one] for one in order(PairStream(folder, seed=0, shuffle_buffer=12))]
    assert sum(a != b for a, b in pairwise(mixed)) > 10


@pytest.mark.parametrize("skip", [0, 1, 7, 21, 22, 30])
def test_a_run_goes_on_exactly_where_it_stopped(folder: Path, skip: int) -> None:
    whole = order(PairStream(folder, seed=1, shuffle_buffer=6), 3)
    assert order(PairStream(folder, seed=1, shuffle_buffer=6), 3, skip) == whole[skip:]


def test_what_is_skipped_is_not_read(folder: Path, tmp_path: Path) -> None:
    copied = data_set(tmp_path, 8, samples_per_shard=1)
    stream = PairStream(copied, seed=0, shuffle_buffer=1)
    last = order(stream)[-1]
    for shard in read_manifest(copied).shards:
        file = copied / shard.name
        if f"sound number {last}".encode() not in file.read_bytes():
            file.write_bytes(b"\0" * shard.bytes)
    assert order(PairStream(copied, seed=0, shuffle_buffer=1), skip=7) == [last]


@pytest.mark.parametrize("world_size", [1, 2, 5, 6, 9, 22, 25])
def test_processes_share_an_epoch_evenly_and_no_sample_is_heard_twice(folder: Path, world_size: int) -> None:
    streams = [
        PairStream(folder, seed=5, shuffle_buffer=4, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    shares = [order(stream, 1) for stream in streams]
    assert Counter(one for share in shares for one in share) == Counter(range(NUM_SAMPLES))
    assert [len(share) for share in shares] == list(map(len, streams))
    assert max(map(len, streams)) - min(map(len, streams)) <= 1
    assert order(streams[0], 1, skip=2) == shares[0][2:]


def test_a_rank_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(TrainingError, match="Rank 2 doesn't exist among 2 processes: number them from 0"):
        PairStream(folder, seed=0, rank=2, world_size=2)


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    folder = data_set(tmp_path, 60, samples_per_shard=20, duration_s=0.5)
    num_bytes = 4 * 60 * 24_000
    stream = PairStream(folder, seed=0, shuffle_buffer=60)
    tracemalloc.start()
    heard = 0
    for sample in stream.epoch(0):
        heard += sample.waveform.nbytes
        time.sleep(0.005)  # as who trains on it: without a bound, all would be decoded meanwhile
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert heard == num_bytes
    assert peak < num_bytes / 2


def test_a_stream_that_is_left_in_the_middle_ends_its_threads(folder: Path) -> None:
    before = set(threading.enumerate())
    samples = PairStream(folder, seed=0, threads=2).epoch(0)
    assert len(list(islice(samples, 3))) == 3
    assert set(threading.enumerate()) > before
    samples.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


# Damage


def test_a_shard_of_another_length_is_named_before_anything_is_heard(tmp_path: Path) -> None:
    folder = data_set(tmp_path, 6)
    shard = folder / "shard-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(TrainingError, match=r"Shard .*shard-000001\.tar is damaged: it has \d+ bytes instead of \d+"):
        PairStream(folder, seed=0)
    shard.unlink()
    with pytest.raises(TrainingError, match=r"Shard .*shard-000001\.tar is missing: copy it again"):
        PairStream(folder, seed=0)


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (0, None, "it can't be read as tar"),
        (512, 1_024, r"sample [0-9a-f]{16} can't be read"),  # the first sound
        (512, None, "1 sample left of 4|it can't be read as tar|0 samples left of 4"),
    ],
)
def test_a_shard_of_other_content_is_named_when_it_is_heard(
    tmp_path: Path, start: int, end: int | None, reason: str
) -> None:
    folder = data_set(tmp_path, 6)
    shard = folder / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[start:end] = b"x" * len(content[start:end])
    shard.write_bytes(content)
    with pytest.raises(TrainingError, match=rf"Shard .*shard-000000\.tar is damaged \(({reason})\): copy it again"):
        list(PairStream(folder, seed=0).epoch(0))


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="isn't a complete data set"):
        PairStream(tmp_path, seed=0)
