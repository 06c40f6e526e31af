from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clapboard.errors import TrainingError
from clapboard.labels.captions import RULES, KeywordsAlone
from tests.training.corpus.recorded import data_set, no_label_studio, noise, record
from training.corpus.batches import PairBatches, crop, meaning
from training.corpus.build import Plan, build
from training.corpus.filters import Rules
from training.corpus.sources import open_source
from training.corpus.stream import Sample
from training.corpus.texts import captions_of
from training.pretraining.batch import Batch
from training.pretraining.loss import affinity
from training.pretraining.processes import ALONE, Processes

NUM_SAMPLES = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 captioned sounds."""
    return data_set(tmp_path_factory.mktemp("batches"), NUM_SAMPLES)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sounds of a tag each, and no caption."""
    sounds = tmp_path_factory.mktemp("tagged")
    for seed, tag in enumerate(("dog_bark", "rain")):
        record(sounds / "in" / tag / f"{seed}.wav", seed)
    plan = Plan(Rules(min_s=0.0, languages=()), threads=1)
    build([open_source(str(sounds / "in"), no_label_studio)], sounds / "set", plan)
    return sounds / "set"


def batches(folder: Path, batch_size: int = 4, processes: Processes = ALONE) -> PairBatches:
    return PairBatches(folder, RULES, batch_size=batch_size, seed=2, processes=processes)


def same(first: Batch, second: Batch) -> bool:
    return first.captions == second.captions and all(map(np.array_equal, first.sounds, second.sounds))


def test_every_sound_comes_at_most_once_an_epoch_with_its_own_caption(folder: Path) -> None:
    found = list(batches(folder).epoch(0))
    assert len(found) == batches(folder).num_batches == 3
    captions = [text.lower().rstrip(".") for batch in found for text in batch.captions]
    assert len(set(captions)) == 12
    for batch in found:
        for sound, text in zip(batch.sounds, batch.captions, strict=True):
            assert np.array_equal(sound, noise(int(text.split()[-1].rstrip(".")), 0.05))


def test_an_epoch_goes_on_from_any_batch(folder: Path) -> None:
    whole = list(batches(folder).epoch(4))
    assert all(map(same, whole[1:], batches(folder).epoch(4, skip=1)))
    assert not same(whole[0], next(batches(folder).epoch(5)))


def test_processes_share_a_batch_and_no_sound_is_in_two(folder: Path) -> None:
    parts = [list(batches(folder, processes=Processes(rank, 2)).epoch(0)) for rank in range(2)]
    assert [len(batch.sounds) for part in parts for batch in part] == [2] * 6
    captions = [text.lower().rstrip(".") for part in parts for batch in part for text in batch.captions]
    assert len(set(captions)) == 12


def test_tags_become_captions_and_the_meaning_of_what_is_heard(tagged: Path) -> None:
    found = [next(batches(tagged, 2).epoch(number)) for number in range(8)]
    assert len({text for batch in found for text in batch.captions}) > 4
    (batch, *_) = found
    assert sorted(batch.meanings, key=str) == [{"dog bark": 1.0}, {"rain": 1.0}]
    assert affinity(batch.meanings, batch.caption_meanings).tolist() == [[1, 0], [0, 1]]
    alone = PairBatches(tagged, KeywordsAlone(), batch_size=2, seed=0)
    assert {text.lower() for text in next(alone.epoch(0)).captions} == {"dog bark", "rain"}


def test_what_is_called_the_same_is_no_negative_of_each_other() -> None:
    sample = Sample("a", noise(0), ("A dog barks.",), ())
    other = replace(sample, key="b", captions=("a dog barks",))
    assert meaning(sample, "A dog barks.") == meaning(other, "a dog barks") != meaning(sample, "A cat meows.")
    tagged = [meaning(replace(sample, tags=tags), "") for tags in (("Car_Horn", "car horn"), ("car horn",))]
    assert affinity(tagged, tagged).tolist() == [[1, 1], [1, 1]]


def test_what_is_too_long_is_cropped_at_random() -> None:
    long = np.arange(1000, dtype=np.float32)
    rng = np.random.default_rng(0)
    starts = {int(crop(long, 400, rng)[0]) for _ in range(30)}
    assert len(starts) > 10
    assert max(starts) <= 600
    assert crop(long, 1000, rng) is long


def test_all_captions_are_read_without_the_sounds(folder: Path, tagged: Path) -> None:
    assert sorted(captions_of(folder, RULES, 0)) == sorted(f"sound number {seed}" for seed in range(NUM_SAMPLES))
    texts = list(captions_of(tagged, RULES, 0))
    assert len(texts) == 2
    assert texts == list(captions_of(tagged, RULES, 0))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"x", "its texts can't be read"), (b"\0", "texts of 0 samples left of 4")]
)
def test_captions_of_a_damaged_shard_are_not_passed_over(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = data_set(tmp_path, 6)
    shard = folder / "shard-000000.tar"
    shard.write_bytes(content * shard.stat().st_size)
    with pytest.raises(TrainingError, match=rf"Shard .*shard-000000\.tar is damaged \({reason}\): copy it again"):
        list(captions_of(folder, RULES, 0))


def test_a_batch_that_cant_be_filled_or_shared_is_refused_in_a_sentence(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"14 pairs, fewer than a batch of 32: choose a smaller batch size\."):
        batches(folder, 32)
    with pytest.raises(TrainingError, match=r"can't be divided among 3 processes: choose a multiple of 3\."):
        batches(folder, 4, Processes(0, 3))
