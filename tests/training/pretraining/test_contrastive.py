"""A batch in portions, and a batch shared by processes, has the loss and the gradients of the whole batch at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import RobertaTokenizer

from clapboard.audio.log_mel import LogMel
from clapboard.labels.captions import RULES
from tests.support.tower_checkpoints import make_model
from training.augment import Augment
from training.mini.batches import BatchMaker
from training.mini.esc10 import Recording
from training.mini.recipe import new_model
from training.mini.text_tower import caption_corpus
from training.pretraining.audio_input import AudioInput
from training.pretraining.batch import Batch
from training.pretraining.contrastive import MAX_SCALE, Contrastive, learn_frames
from training.pretraining.mixtures import Sound, mixtures_of
from training.pretraining.processes import ALONE, Processes
from training.pretraining.tokenizer import train_tokenizer
from training.sounds.synthesis import synthesise

KINDS = ("bell", "rain", "siren")
PORTIONS = (0, 2)
"""What two processes do at once: all of their part of the batch, or two clips."""
LONG_OF_FIRST: dict[str, list[int]] = {"none": [], "one": [1], "two": [0, 1]}
"""Which clips of the first process's part are longer than a window; of the other's, none."""

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def tokenizer() -> RobertaTokenizer:
    return train_tokenizer(caption_corpus(KINDS, RULES, seed=0), vocab_size=400)


def task(*, dropout: float = 0.0, portion: int = 0, processes: Processes = ALONE, fused: bool = False) -> Contrastive:
    """The same one in every process; nothing random in it but dropout."""
    words = tokenizer()
    torch.manual_seed(1)
    model = new_model(len(words), width=8, depths=(1, 1, 1, 1), fused=fused)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    audio = AudioInput(model, LogMel("slaney"), augment=None, dtype=torch.float32)
    return Contrastive(model, words, audio, portion=portion, processes=processes)


def batch(processes: Processes = ALONE) -> Batch:
    recordings = [Recording(kind, synthesise(kind, seed, 1.0)) for kind in KINDS for seed in range(2)]
    maker = BatchMaker(recordings, [], RULES, synthetic_per_epoch=0, batch_size=6, seed=5, processes=processes)
    return next(maker.epoch(0))


fused_task = partial(task, fused=True)


def frame_task(**options: Any) -> Contrastive:
    """A model that learns frames too."""
    made = task(**options)
    learn_frames(made.model)
    return made


def with_mixtures(batch: Batch, processes: Processes = ALONE) -> Batch:
    """The batch with four mixtures, over all processes."""
    tones = [Sound(synthesise(kind, 9, 1.0), {kind: 1.0}) for kind in KINDS]
    mixtures = mixtures_of(tones, 4, np.random.default_rng(3))
    return replace(batch, mixtures=mixtures[processes.rank :: processes.count])


def lengthened(batch: Batch, places: Sequence[int]) -> Batch:
    """The batch, in which the sounds at these places are longer than a window."""
    sounds = [np.resize(sound, 530_000) if place in places else sound for place, sound in enumerate(batch.sounds)]
    return replace(batch, sounds=sounds)


def gradients(task: Contrastive) -> dict[str, torch.Tensor]:
    named = task.model.named_parameters()
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def assert_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], relative: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= relative * gradient.norm() + 1e-6 * largest, name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("portion", [1, 4, 5])
def test_portions_have_the_gradients_of_the_whole_batch(portion: int, dropout: float) -> None:
    whole, parts = task(), task(portion=portion)
    assert parts.gradients(batch(), seed=2) == pytest.approx(whole.gradients(batch(), seed=2), abs=1e-5)
    assert_alike(gradients(parts), gradients(whole))
    if dropout:  # takes the same away in both passes: otherwise the loss in hand would be another one's
        once, again = (task(dropout=dropout, portion=portion) for _ in range(2))
        assert once.gradients(batch(), seed=2) == again.gradients(batch(), seed=2)
        assert_alike(gradients(once), gradients(again))


def test_dropout_is_the_same_in_both_passes() -> None:
    """The gradient of a portion is that of the loss that was computed, found by changing a weight a little."""
    trained = task(dropout=0.3, portion=2)
    trained.gradients(batch(), seed=4)
    weight = trained.model.text_projection.linear2.weight
    direction = weight.grad / weight.grad.norm()
    slope = float((weight.grad * direction).sum())
    losses = []
    for sign in (1, -1):
        moved = task(dropout=0.3, portion=2)
        with torch.no_grad():
            moved.model.text_projection.linear2.weight.add_(sign * 1e-2 * direction)
        losses.append(moved.gradients(batch(), seed=4))
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(slope, rel=0.02)


def test_a_step_down_the_gradient_lowers_the_loss() -> None:
    trained = task()
    before = trained.gradients(batch(), seed=0)
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter -= 1e-3 * (parameter.grad if parameter.grad is not None else 0.0)
    assert trained.gradients(batch(), seed=0) < before


def test_what_is_random_follows_from_the_seed() -> None:
    def loss(seed: int) -> float:
        trained = task(dropout=0.1)
        trained._audio = AudioInput(trained.model, LogMel("slaney"), augment=Augment(), dtype=torch.float32)
        return trained.gradients(batch(), seed)

    assert loss(1) == loss(1) != loss(2)


def test_temperatures_have_a_limit() -> None:
    trained = task()
    trained.model.logit_scale_a.data.fill_(9.0)
    trained.limit_scales()
    assert trained.scale == pytest.approx(MAX_SCALE)


@pytest.mark.parametrize("portion", [0, 4, 6])
def test_statistics_learn_from_each_clip_once(portion: int) -> None:
    trained = fused_task(portion=portion)
    trained.gradients(lengthened(batch(), [0, 1, 4, 5]), seed=0)
    block = trained.model.audio_model.audio_encoder.patch_embed.fusion_model
    portions_with_two = 2 if portion == 4 else 1
    assert [int(layer.num_batches_tracked) for layer in block.local_att if hasattr(layer, "eps")] == [
        portions_with_two
    ] * 2


def test_panns_statistics_learn_from_each_portion_once() -> None:
    model, words = make_model("cnn14", "roberta")
    audio = AudioInput(model, LogMel("slaney"), augment=None, dtype=torch.float32)
    Contrastive(model, words, audio, portion=3).gradients(batch(), seed=0)
    encoder = model.audio_model.audio_encoder
    assert int(encoder.bn0.num_batches_tracked) == int(encoder.conv_block6.bn2.num_batches_tracked) == 2


def test_two_processes_have_the_loss_gradients_and_statistics_of_one(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*torchrun, str(root / "tests" / "training" / "pretraining" / "one_of_two.py"), str(tmp_path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    for portion in PORTIONS:
        alone = task(portion=portion)
        loss = alone.gradients(batch(), seed=0)
        norm = alone.model.audio_model.audio_encoder.batch_norm
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}-{portion}.pt", weights_only=True)
            assert found["loss"] == pytest.approx(loss, abs=1e-5)
            assert_alike(found["gradients"], gradients(alone))
            torch.testing.assert_close(found["mean"], norm.running_mean, atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(found["variance"], norm.running_var, atol=1e-3, rtol=1e-4)
    alone = frame_task()
    loss = alone.gradients(with_mixtures(batch()), seed=0)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}-frames.pt", weights_only=True)
        assert found["loss"] == pytest.approx(loss, abs=1e-5)
        assert_alike(found["gradients"], gradients(alone), relative=1e-3)
    for name, places in LONG_OF_FIRST.items():  # which lie at every other place of the whole
        fused = fused_task()
        loss = fused.gradients(lengthened(batch(), [2 * place for place in places]), seed=0)
        statistics = dict(fused.model.named_buffers())
        unreached = {name: torch.zeros_like(value) for name, value in fused.model.named_parameters()}
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}-0-{name}.pt", weights_only=True)
            assert found["loss"] == pytest.approx(loss, abs=1e-5)
            # What a weight before a BatchNorm gets is a small difference of large sums: coarser in float32.
            assert_alike(found["gradients"], unreached | gradients(fused), relative=1e-3)
            torch.testing.assert_close(found["statistics"], statistics, atol=1e-3, rtol=1e-4)
        parts = [torch.load(tmp_path / f"{rank}-2-{name}.pt", weights_only=True) for rank in range(2)]
        assert parts[0]["loss"] == pytest.approx(parts[1]["loss"], abs=1e-6)
        assert_alike(parts[0]["gradients"], parts[1]["gradients"])
        torch.testing.assert_close(parts[0]["statistics"], parts[1]["statistics"], atol=0, rtol=0)
