"""The frame loss: a model learns when each text's sound is heard, and that becomes part of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from clapboard.audio.log_mel import LogMel
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES
from clapboard.model.checkpoints import AudioTowerName
from clapboard.model.frame_scores import FrameScores
from tests.support.tower_checkpoints import make_model
from training.mini.recipe import new_model
from training.pretraining.audio_input import AudioInput
from training.pretraining.batch import Batch
from training.pretraining.contrastive import Contrastive, Teacher, learn_frames
from training.pretraining.frames import FrameScorer, frame_loss, frame_targets
from training.pretraining.mixtures import Mixture, Sound, TimedEvent, active_parts, coverage, mixed, mixtures_of
from training.pretraining.optimiser import Optimiser
from training.sounds.waveforms import noise

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CAPTIONS = {"low": "This is a sound of a dog.", "high": "This is a sound of rain."}


def tone(kind: str, seconds: float = 1.0) -> Sound:
    time_s = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return Sound((0.3 * np.sin(2 * np.pi * {"low": 200, "high": 4_000}[kind] * time_s)).astype(np.float32), {kind: 1.0})


def planted(seed: int, kinds: Sequence[str] = ("low", "high")) -> Mixture:
    """A window with a tone of two seconds of each kind, the first in its first half, over a faint noise."""
    rng = np.random.default_rng(seed)
    window = 0.003 * noise(rng, WINDOW_SAMPLES).astype(np.float32)
    events = []
    for half, kind in enumerate(kinds):
        start = int((5 * half + rng.uniform(0, 3)) * SAMPLE_RATE)
        window[start : start + 2 * SAMPLE_RATE] += tone(kind, 2.0).waveform
        events.append(TimedEvent(start / SAMPLE_RATE, start / SAMPLE_RATE + 2, {kind: 1.0}))
    return Mixture(window, tuple(events))


def batch(seed: int) -> Batch:
    kinds = [*CAPTIONS] * 2
    meanings = [{kind: 1.0} for kind in kinds]
    sounds = [tone(kind).waveform for kind in kinds]
    mixtures = [planted(10 * seed + number, ("low", "high") if number % 2 else ("high", "low")) for number in range(4)]
    return Batch(sounds, meanings, [CAPTIONS[kind] for kind in kinds], meanings, mixtures=mixtures)


def test_an_event_covers_a_frame_in_part() -> None:
    covered = coverage([TimedEvent(0.5, 2.25, {}), TimedEvent(9.0, 10.0, {})], 10, 1.0)
    assert covered[0].tolist() == [0.5, 1, 0.25, 0, 0, 0, 0, 0, 0, 0]
    assert covered[1].tolist() == [0] * 9 + [1]
    assert coverage([], 4, 2.5).shape == (0, 4)


def test_targets_are_the_covered_shares_and_leave_out_what_is_unknown() -> None:
    events = (TimedEvent(0, 2.5, {"dog": 1.0}), TimedEvent(5.0, 7.5, {"dog": 0.5, "rain": 0.5}))
    mixture = Mixture(np.zeros(WINDOW_SAMPLES, np.float32), events, {"wind": 1.0})
    texts = [{"dog": 1.0}, {"dog": 0.5, "rain": 0.5}, {"bell": 1.0}, {"wind": 1.0}]
    targets, known = frame_targets([mixture], texts, 4, 2.5)
    assert targets[0].T.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert known[0].T.tolist() == [[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_an_edge_counts_for_its_text_by_the_share_that_is_covered() -> None:
    logits = torch.tensor([[[3.0]]])
    losses = [float(frame_loss(logits, torch.tensor([[[share]]]), torch.ones(1, 1, 1))) for share in (0.0, 0.25, 1.0)]
    assert losses[1] == pytest.approx(0.75 * losses[0] + 0.25 * losses[2])
    assert float(frame_loss(logits, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))) == 0


def test_pauses_end_an_event_only_if_they_are_long() -> None:
    second = tone("low").waveform
    silence = np.zeros_like(second)
    found = active_parts(np.concatenate([silence, second, silence, second, silence, silence, second, silence]))
    assert np.round(np.array(found) / SAMPLE_RATE, 1).tolist() == [[1.0, 4.0], [6.0, 7.0]]
    assert active_parts(silence) == []


def test_events_of_a_mixture_are_where_the_sound_is() -> None:
    for seed in range(6):
        mixture = mixed([tone("low", 3), tone("high")], None, np.random.default_rng(seed))
        assert mixture.waveform.shape == (WINDOW_SAMPLES,)
        assert mixture.waveform.dtype == np.float32
        assert np.abs(mixture.waveform).max() <= 1
        for event in mixture.events:
            assert 0 <= event.start_s < event.end_s <= 10
            part = mixture.waveform[int(event.start_s * SAMPLE_RATE) : int(event.end_s * SAMPLE_RATE)]
            spectrum = np.abs(np.fft.rfft(part * np.hanning(part.size)))
            hz = 200 if "low" in event.meaning else 4_000
            bins = slice(int(0.9 * hz * part.size / SAMPLE_RATE), int(1.1 * hz * part.size / SAMPLE_RATE) + 2)
            assert spectrum[bins].max() > 3 * np.median(spectrum)


def test_a_background_may_be_heard_at_any_time() -> None:
    sounds = [tone("low"), tone("high"), tone("low")]
    mixtures = mixtures_of(sounds, 15, np.random.default_rng(0))
    unknown = [mixture.unknown for mixture in mixtures]
    assert {} in unknown
    assert {"high": 1.0} in unknown
    assert {len(mixture.events) for mixture in mixtures} >= {0, 1, 2}
    silent = Sound(np.zeros(100, np.float32), {"silence": 1.0})
    assert mixed([silent], silent, np.random.default_rng(1)).events == ()


@pytest.mark.parametrize("tower", ["htsat", "cnn14"])
def test_frames_locate_a_planted_sound_better_than_before(tower: AudioTowerName) -> None:
    task = tiny_task(tower)
    optimiser = Optimiser(task.model, "muon", 0.0)
    before = located(task)
    losses = []
    for step in range(8):
        losses.append(task.gradients(batch(step), seed=step))
        optimiser.step(2e-3, max_norm=1.0)
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert located(task) > before + 0.25


def tiny_task(tower: AudioTowerName, **options: Any) -> Contrastive:
    """A model that learns frames, without dropout, always the same one."""
    model, words = make_model(tower, "roberta")
    torch.manual_seed(0)
    if tower == "htsat":
        model = new_model(len(words), width=16, depths=(1, 1, 1, 1))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if tower == "cnn14":
        encoder = model.audio_model.audio_encoder
        encoder.dropout = encoder.block_dropout = 0.0
    learn_frames(model)
    audio = AudioInput(model, LogMel("slaney"), augment=None, dtype=torch.float32)
    return Contrastive(model, words, audio, **options)


def located(task: Contrastive) -> float:
    """How much more probable a text is in the frames that its sound covers than in the others."""
    mixtures = [planted(1_000), planted(1_001, ("high", "low"))]
    with torch.no_grad():
        frames = task._embed_frames(task._audio.prepare([], [mixture.waveform for mixture in mixtures]))
        texts = task._embed_text(task._tokens([*CAPTIONS.values()]))
        probabilities = torch.sigmoid(task.model.frame_scorer(frames, texts))
    meanings = [{kind: 1.0} for kind in CAPTIONS]
    targets, _ = frame_targets(mixtures, meanings, task._audio.num_frames, task._audio.frame_s)
    return float(probabilities[targets > 0.9].mean() - probabilities[targets == 0].mean())


def test_portions_have_the_gradients_of_the_whole_batch() -> None:
    def gradients(portion: int) -> dict[str, torch.Tensor]:
        teacher = tiny_task("htsat").model.eval()
        with torch.no_grad():
            teacher.audio_projection.linear1.weight.mul_(1.1)
        teachers_input = AudioInput(teacher, LogMel("slaney"), augment=None, dtype=torch.float32)
        kept = Teacher(teachers_input, teacher.audio_projection, weight=2.0)
        task = tiny_task("htsat", portion=portion, teacher=kept, frame_weight=0.5)
        losses.append(task.gradients(batch(0), seed=1))
        return {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}

    losses: list[float] = []
    whole, parts = gradients(0), gradients(3)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert whole.keys() == parts.keys() >= {"frame_scorer.bias", "frame_scorer.text_weight", "frame_scorer.log_scale"}
    largest = max(gradient.norm() for gradient in whole.values())
    for name, gradient in whole.items():
        assert (parts[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-5 * largest, name


def test_what_was_learnt_about_frames_before_is_where_training_goes_on() -> None:
    start = FrameScores(7.0, np.linspace(-1, 1, 32, dtype=np.float32), -2.0)
    again = FrameScorer(32, start).frame_scores()
    assert (again.scale, again.bias) == pytest.approx((7.0, -2.0))
    np.testing.assert_allclose(again.text_weight, start.text_weight, rtol=1e-6)
