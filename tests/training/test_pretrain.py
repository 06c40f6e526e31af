from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import RobertaTokenizer

from clapboard.audio.log_mel import LogMel
from clapboard.errors import TrainingError
from clapboard.labels.captions import RULES
from clapboard.model.clap import ClapEncoder
from training.augment import Augment
from training.checkpoint import publish
from training.mini.batches import BatchMaker
from training.mini.esc10 import Recording
from training.mini.recipe import new_model
from training.mini.text_tower import caption_corpus
from training.pretrain import Schedule, ahead, pretrain
from training.pretraining.audio_input import AudioInput
from training.pretraining.batch import Batch
from training.pretraining.contrastive import Contrastive
from training.pretraining.tokenizer import train_tokenizer
from training.sounds.synthesis import synthesise

KINDS = ("bell", "rain")
TINY = Schedule(epochs=2, seed=3, warmup_epochs=0.5, averaging=0.5, save_every=1)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def tokenizer() -> RobertaTokenizer:
    return train_tokenizer(caption_corpus(KINDS, RULES, seed=0), vocab_size=400)


def recordings() -> list[Recording]:
    return [Recording(kind, synthesise(kind, seed, 1.0)) for kind in KINDS for seed in range(2)]


def batch_maker() -> BatchMaker:
    return BatchMaker(recordings(), [], RULES, synthetic_per_epoch=0, batch_size=2, seed=TINY.seed)


def tiny_task(tokenizer: RobertaTokenizer, seed: int = 0) -> Contrastive:
    torch.manual_seed(seed)
    model = new_model(len(tokenizer), width=8, depths=(1, 1, 1, 1))
    audio = AudioInput(model, LogMel("slaney"), augment=Augment(), dtype=torch.float32)
    return Contrastive(model, tokenizer, audio)


class InterruptedAt:
    """Batches that break off, once, before a given one of an epoch, the second by default."""

    def __init__(self, batch: int, epoch: int = 1) -> None:
        self._batches, self._interrupt_at, self._epoch = batch_maker(), batch, epoch
        self.num_batches = self._batches.num_batches

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        for index, batch in enumerate(self._batches.epoch(number, skip=skip), start=skip):
            if number == self._epoch and index == self._interrupt_at:
                self._interrupt_at = -1
                raise KeyboardInterrupt
            yield batch


def run(
    out: Path,
    tokenizer: RobertaTokenizer,
    batches: BatchMaker | InterruptedAt,
    schedule: Schedule = TINY,
    identity: str = "tiny",
    publish_to: Callable[[Any], None] | None = None,
) -> None:
    pretrain(
        tiny_task(tokenizer),
        batches,
        schedule,
        out,
        identity=identity,
        publish=publish_to or (lambda model: publish(model, tokenizer, out / "mini")),
        evaluate=lambda: {"files": len(list((out / "mini").glob("*")))},
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / "state.pt", weights_only=True)["averaged"]
    return state


@pytest.mark.parametrize("interrupted_at", [0, 1])
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, tokenizer: RobertaTokenizer, interrupted_at: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, tokenizer, batch_maker())
    batches = InterruptedAt(interrupted_at)
    with pytest.raises(KeyboardInterrupt):
        run(broken, tokenizer, batches)
    run(broken, tokenizer, batches)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(broken).items())
    published = (load_file(out / "mini" / "model.safetensors") for out in (whole, broken))
    assert all(torch.equal(*pair) for pair in zip(*(one.values() for one in published), strict=True))


def test_what_a_kill_kept_from_being_published_is_published_by_the_next_start(
    tmp_path: Path, tokenizer: RobertaTokenizer
) -> None:
    def killed(_model: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tokenizer, batch_maker(), publish_to=killed)
    run(tmp_path, tokenizer, batch_maker())
    assert (tmp_path / "mini" / "model.safetensors").is_file()
    events = EventAccumulator(str(tmp_path / "curves")).Reload()
    assert [event.step for event in events.Scalars("files")] == [4]


def test_indices_are_published_as_they_are_and_not_averaged(tmp_path: Path, tokenizer: RobertaTokenizer) -> None:
    found: dict[str, torch.Tensor] = {}
    run(tmp_path, tokenizer, batch_maker(), publish_to=lambda model: found.update(model.state_dict()))
    learnt = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    whole_numbers = [name for name, value in learnt.items() if not value.is_floating_point()]
    assert any(name.endswith("relative_position_index") for name in whole_numbers)
    assert all(torch.equal(found[name], learnt[name]) for name in whole_numbers)


def test_a_short_runs_average_forgets_the_random_start(tmp_path: Path, tokenizer: RobertaTokenizer) -> None:
    found: dict[str, torch.Tensor] = {}
    schedule = replace(TINY, averaging=0.997)
    run(tmp_path, tokenizer, batch_maker(), schedule, publish_to=lambda model: found.update(model.state_dict()))
    learnt, start = torch.load(tmp_path / "state.pt", weights_only=True)["model"], tiny_task(tokenizer).model
    name = "audio_projection.linear1.weight"
    to_learnt, to_start = ((found[name] - other).norm() for other in (learnt[name], start.state_dict()[name]))
    assert to_learnt < 0.1 * to_start


def test_the_published_folder_is_what_the_encoder_loads(tmp_path: Path, tokenizer: RobertaTokenizer) -> None:
    run(tmp_path, tokenizer, batch_maker())
    encoder = ClapEncoder.load(str(tmp_path / "mini"), device="cpu", engine="torch")
    embedding = encoder.embed_windows(np.tile(recordings()[0].waveform, 10)[None])
    assert embedding.shape == (1, 256)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert not (tmp_path / "mini.building").exists()


def test_a_state_of_another_schedule_is_refused_in_a_sentence(tmp_path: Path, tokenizer: RobertaTokenizer) -> None:
    run(tmp_path, tokenizer, batch_maker())
    with pytest.raises(TrainingError, match=r"another schedule or other data: choose another --out, or delete it\."):
        run(tmp_path, tokenizer, batch_maker(), replace(TINY, peak_rate=1e-4))
    with pytest.raises(TrainingError, match="other data"):
        run(tmp_path, tokenizer, batch_maker(), identity="another data set")
    run(tmp_path, tokenizer, batch_maker(), replace(TINY, save_every=7, evaluate_every=3))  # decides nothing


def test_a_loss_that_is_no_number_ends_the_run_in_a_sentence(tmp_path: Path, tokenizer: RobertaTokenizer) -> None:
    with pytest.raises(TrainingError, match=r"diverged at step \d.*lower peak rate"):
        run(tmp_path, tokenizer, batch_maker(), replace(TINY, peak_rate=float("nan")))


@pytest.mark.parametrize(("interrupted_at", "save_every"), [(0, 1), (1, 1), (1, 9)])
def test_curves_are_written_once_a_step_however_often_the_run_was_interrupted(
    tmp_path: Path, tokenizer: RobertaTokenizer, interrupted_at: int, save_every: int
) -> None:
    batches = InterruptedAt(interrupted_at)
    schedule = replace(TINY, evaluate_every=1, save_every=save_every)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tokenizer, batches, schedule)
    run(tmp_path, tokenizer, batches, schedule)
    events = EventAccumulator(str(tmp_path / "curves")).Reload()
    for name in ("loss", "rate", "gradient norm", "scale"):
        assert [event.step for event in events.Scalars(name)] == [0, 1, 2, 3]
    assert [event.step for event in events.Scalars("files")] == [2, 4]


def test_a_run_that_broke_off_before_it_saved_leaves_no_step_twice(tmp_path: Path, tokenizer: RobertaTokenizer) -> None:
    batches, schedule = InterruptedAt(1, epoch=0), replace(TINY, save_every=9)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tokenizer, batches, schedule)
    run(tmp_path, tokenizer, batches, schedule)
    events = EventAccumulator(str(tmp_path / "curves")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2, 3]


def test_batches_are_made_ahead_and_none_is_lost() -> None:
    made = list(ahead(iter(batch_maker().epoch(0))))
    expected = list(batch_maker().epoch(0))
    assert len(made) == len(expected) == 2
    for ours, theirs in zip(made, expected, strict=True):
        assert ours.captions == theirs.captions
        assert all(map(np.array_equal, ours.sounds, theirs.sounds))
