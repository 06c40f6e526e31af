from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import RobertaTokenizer

from clapboard.clap import ClapEncoder
from training.augment import Augment
from training.dataset import Batch, BatchMaker, Recording
from training.mini import new_model
from training.pretrain import Batches, Schedule, Trainer, pretrain
from training.sounds.synthesis import synthesise
from training.texts import pretrain_texts
from training.tokenizer import caption_corpus, train_tokenizer

KINDS = ("bell", "rain")
TINY = Schedule(
    epochs=2, seed=3, batch_size=2, synthetic_per_epoch=0, text_steps=3, warmup_epochs=0.5, cooldown=0.5, averaging=0.5
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [Recording(kind, synthesise(kind, seed, 1.0)) for kind in KINDS for seed in range(2)]


@pytest.fixture(scope="module")
def tokenizer() -> RobertaTokenizer:
    return train_tokenizer(caption_corpus(KINDS, seed=0), vocab_size=400)


def batch_maker(recordings: list[Recording]) -> BatchMaker:
    return BatchMaker(recordings, [], synthetic_per_epoch=0, batch_size=2, seed=TINY.seed)


def run(
    out: Path,
    recordings: list[Recording],
    tokenizer: RobertaTokenizer,
    schedule: Schedule = TINY,
    batches: Batches | None = None,
) -> None:
    torch.manual_seed(schedule.seed)
    model = new_model(len(tokenizer), width=8, depths=(1, 1, 1, 1))
    pretrain(model, tokenizer, batches or batch_maker(recordings), [], schedule, out)


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / "state.pt", weights_only=True)["averaged"]
    return state


class InterruptedOnce:
    """Batches that break off, the first time, when the second epoch is asked for."""

    def __init__(self, batches: BatchMaker) -> None:
        self._batches = batches
        self._interrupted = False
        self.kinds, self.num_batches = batches.kinds, batches.num_batches

    def epoch(self, number: int) -> Iterator[Batch]:
        if number == 1 and not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt
        return self._batches.epoch(number)


def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, recordings: list[Recording], tokenizer: RobertaTokenizer
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, recordings, tokenizer)
    interrupted = InterruptedOnce(batch_maker(recordings))
    with pytest.raises(KeyboardInterrupt):
        run(broken, recordings, tokenizer, batches=interrupted)
    run(broken, recordings, tokenizer, batches=interrupted)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(broken).items())


def test_the_published_folder_is_what_the_encoder_loads(
    tmp_path: Path, recordings: list[Recording], tokenizer: RobertaTokenizer
) -> None:
    run(tmp_path, recordings, tokenizer)
    encoder = ClapEncoder.load(str(tmp_path / "mini"), device="cpu")
    embedding = encoder.embed_windows(np.tile(recordings[0].waveform, 10)[None])
    assert embedding.shape == (1, 256)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert not (tmp_path / "mini.building").exists()


def test_a_state_of_another_schedule_is_refused(
    tmp_path: Path, recordings: list[Recording], tokenizer: RobertaTokenizer
) -> None:
    run(tmp_path, recordings, tokenizer)
    with pytest.raises(ValueError, match="another schedule"):
        run(tmp_path, recordings, tokenizer, replace(TINY, seed=4))
    with pytest.raises(ValueError, match="another schedule"):
        run(tmp_path, recordings, tokenizer, replace(TINY, epochs=9))  # its cool-down is over: too late for more


def test_the_rate_rises_stays_and_falls_to_zero(tokenizer: RobertaTokenizer) -> None:
    schedule = Schedule(epochs=100, warmup_epochs=4, cooldown=0.3, peak_rate=1.0)
    trainer = Trainer(new_model(len(tokenizer), width=8, depths=(1, 1, 1, 1)), tokenizer, schedule)
    rates = [trainer.rate_at(epoch) for epoch in (0, 2, 4, 70, 77.5, 100)]
    assert rates == pytest.approx([0.0025, 0.5025, 1, 1, 0.5, 0], abs=1e-6)


def test_texts_of_one_kind_move_together_before_any_sound(tokenizer: RobertaTokenizer) -> None:
    torch.manual_seed(0)
    model = new_model(len(tokenizer), width=8, depths=(1, 1, 1, 1))

    def cosine(first: str, second: str) -> float:
        tokens = tokenizer([first, second], padding=True, return_tensors="pt")
        with torch.no_grad():
            left, right = model.eval().get_text_features(**tokens).pooler_output
        model.train()
        return float(left @ right)

    pretrain_texts(model, tokenizer, KINDS, steps=80, seed=0)
    assert cosine("This is a sound of rain.", "Heavy rain") > cosine("This is a sound of rain.", "A church bell") + 0.3


def test_augmented_features_keep_their_shape_and_lose_no_more_than_the_masks() -> None:
    torch.manual_seed(1)
    features = torch.randn(3, 1001, 64) * 10 - 40
    changed = Augment()(features)
    assert changed.shape == features.shape
    difference = (changed - features).abs()
    assert ((difference > 1e-3) & (difference <= 6.001)).float().mean() > 0.5  # the equaliser's ±6 dB
    masked = changed == changed.flatten().mode().values
    assert 0 < masked.float().mean() < 0.45
    assert not torch.equal(masked[0], masked[1])


def test_the_tokenizer_gives_back_any_text(tokenizer: RobertaTokenizer) -> None:
    for text in ("This is a sound of rain.", "Größe 東京 🎺"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text
    assert len(tokenizer.tokenize("This is a sound of rain.")) <= 8
