"""The second stage of the embedded checkpoint's training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clapboard.model.checkpoints import checkpoint_folder
from clapboard.model.clap import ClapEncoder
from clapboard.model.frame_scores import FRAME_SCORES_FILE
from training.mini.batches import NEUTRAL
from training.mini.esc10 import Recording
from training.mini.frame_stage import FrameRecipe, MixtureBatches, maker_of, teach_frames
from training.pretrain import Schedule
from training.sounds.synthesis import synthesise

MINI = checkpoint_folder("mini")
SHORT = FrameRecipe(
    schedule=Schedule(epochs=1, seed=5, peak_rate=1e-3, warmup_epochs=0, averaging=0.5),
    batch_size=3,
    mixtures=2,
    synthetic_per_kind=0,
    synthetic_per_epoch=0,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    kinds = ("rain", "bell", "silence")
    return [Recording(kind, synthesise(kind, seed, 1.0)) for kind in kinds for seed in range(2)]


def test_it_keeps_the_texts_learns_frames_and_makes_the_same_files_again(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    first, again = (teach_frames(SHORT, MINI, recordings, [], tmp_path / name) for name in ("first", "again"))
    for name in ("model.safetensors", FRAME_SCORES_FILE):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    before, after = load_file(MINI / "model.safetensors"), load_file(first / "model.safetensors")
    changed = {name.split(".")[0] for name, weight in before.items() if not weight.equal(after[name])}
    assert changed == {"audio_model", "audio_projection"}
    encoder = ClapEncoder.load(str(first), device="cpu", engine="torch")
    assert encoder.frame_scores is not None


def test_a_mixture_follows_from_seed_and_place_and_asks_nothing_of_neutral_texts(recordings: list[Recording]) -> None:
    def batches(seed: int) -> MixtureBatches:
        recipe = replace(SHORT, schedule=replace(SHORT.schedule, seed=seed))
        return MixtureBatches(maker_of(recipe, recordings, []), recordings, [], mixtures=4, seed=seed)

    whole, rest, other = [*batches(1).epoch(0)], [*batches(1).epoch(0, skip=1)], [*batches(2).epoch(0)]
    assert [len(batch.mixtures) for batch in whole] == [4, 4]
    for one, same in zip(whole[1].mixtures, rest[0].mixtures, strict=True):
        assert (one.waveform == same.waveform).all()
        assert one.events == same.events
    assert any((a.waveform != b.waveform).any() for a, b in zip(whole[0].mixtures, other[0].mixtures, strict=True))
    mixtures = [mixture for batch in whole for mixture in batch.mixtures]
    assert all(NEUTRAL in mixture.unknown for mixture in mixtures)
    assert {kind for mixture in mixtures for event in mixture.events for kind in event.meaning} <= {"rain", "bell"}
