"""The second stage of the embedded checkpoint's training: it learns frames, and keeps what it knows of whole sounds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapboard.labels.captions import RuleCaptioner
from clapboard.model.checkpoints import fingerprint, load_log_mel, load_model, load_tokenizer
from clapboard.model.clap import ClapEncoder
from training.augment import Augment
from training.checkpoint import publish
from training.mini.batches import NEUTRAL, BatchMaker, respeeded, synthetic_recordings
from training.mini.esc10 import Recording
from training.mini.recipe import digest_of
from training.mini.zero_shot import zero_shot
from training.pretrain import Schedule, pretrain
from training.pretraining.audio_input import AudioInput
from training.pretraining.batch import Batch
from training.pretraining.contrastive import Contrastive, Teacher, learn_frames
from training.pretraining.mixtures import Mixture, Sound, mixed

_REAL_SHARE = 0.65
_SOUNDING_SHARE = 0.5
"""How many of the mixtures have a background of another sound; the others have noise."""
_BACKGROUNDS = ("rain", "sea waves", "wind", "engine", "white noise", "fire crackling", "cricket", "helicopter")
_TRIES = 4  # sounds for a mixture, of which it takes none to all

log = logging.getLogger("training.mini")


@dataclass(frozen=True)
class FrameRecipe:
    """The settings of the second stage."""

    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            epochs=60, peak_rate=4e-4, warmup_epochs=1, averaging=0.99, weight_decay=0.0, evaluate_every=60
        )
    )
    batch_size: int = 16
    mixtures: int = 16  # a step
    synthetic_per_kind: int = 20
    synthetic_per_epoch: int = 80
    frame_weight: float = 2.0
    teacher_weight: float = 10.0
    unheard_bias: float = field(default=1.0, repr=False)  # changes what is published, not the training


class MixtureBatches:
    """The batches of a `BatchMaker`, each with mixtures of its recordings at known times."""

    def __init__(
        self,
        batches: BatchMaker,
        real: Sequence[Recording],
        synthetic: Sequence[Recording],
        *,
        mixtures: int,
        seed: int,
    ) -> None:
        self._batches = batches
        self._real = [recording for recording in real if recording.kind != "silence"]
        self._synthetic = [recording for recording in synthetic if recording.kind != "silence"]
        self._backgrounds = [recording for recording in (*real, *synthetic) if recording.kind in _BACKGROUNDS]
        self._mixtures, self._seed = mixtures, seed
        self.num_batches = batches.num_batches

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        """The epoch's batches without the first `skip`. A mixture depends on the seed and its place alone."""
        for index, batch in enumerate(self._batches.epoch(number, skip=skip), skip):
            seeds = ([self._seed, number, index, place, 2] for place in range(self._mixtures))
            yield replace(batch, mixtures=[self._mixture(np.random.default_rng(seed)) for seed in seeds])

    def _mixture(self, rng: np.random.Generator) -> Mixture:
        sounds = [self._sound(rng) for _ in range(_TRIES)]
        background = None
        if self._backgrounds and rng.random() < _SOUNDING_SHARE:
            recording = self._backgrounds[rng.integers(len(self._backgrounds))]
            background = Sound(recording.waveform, {recording.kind: 1.0})
        mixture = mixed(sounds, background, rng)
        # A neutral text fits each moment, or none.
        return replace(mixture, unknown={**mixture.unknown, NEUTRAL: 1.0})

    def _sound(self, rng: np.random.Generator) -> Sound:
        pool = self._real if (self._real and rng.random() < _REAL_SHARE) or not self._synthetic else self._synthetic
        recording = pool[rng.integers(len(pool))]
        return Sound(respeeded(recording.waveform, rng), {recording.kind: 1.0})


def teach_frames(
    recipe: FrameRecipe, start: Path, real: Sequence[Recording], validation: Sequence[Recording], out: Path
) -> Path:
    """Goes on from the checkpoint in `start`, from the saved state in `out` if any; returns the published folder.

    The text tower stays as it is. The embeddings of whole sounds are held to those that the checkpoint gave before.
    """
    schedule, folder = recipe.schedule, out / "mini"
    torch.manual_seed(schedule.seed)
    synthetic = synthetic_recordings(recipe.synthetic_per_kind, schedule.seed)
    maker = maker_of(recipe, real, synthetic)
    batches = MixtureBatches(maker, real, synthetic, mixtures=recipe.mixtures, seed=schedule.seed)
    model, tokenizer = load_model(str(start), start), load_tokenizer(str(start), start)
    log_mel = load_log_mel(str(start), model, start)
    teacher_model = load_model(str(start), start).eval().requires_grad_(False)
    teacher = Teacher(
        AudioInput(teacher_model, log_mel, augment=None, dtype=torch.bfloat16),
        teacher_model.audio_projection,
        recipe.teacher_weight,
    )
    learn_frames(model)
    model.frame_scorer.unheard_bias = recipe.unheard_bias
    audio = AudioInput(model, log_mel, augment=Augment(), dtype=torch.bfloat16)
    task = Contrastive(model, tokenizer, audio, dtype=torch.bfloat16, frame_weight=recipe.frame_weight, teacher=teacher)
    _freeze(model)

    def evaluate() -> Mapping[str, float]:
        encoder = ClapEncoder.load(str(folder), device="cpu", engine="torch")
        return {"validation accuracy": zero_shot(encoder, validation).accuracy} if validation else {}

    pretrain(
        task,
        batches,
        schedule,
        out,
        identity=f"{recipe!r} {fingerprint(start)} {digest_of(real)}",
        publish=lambda averaged: publish(averaged, tokenizer, folder, dtype=torch.float16),
        evaluate=evaluate,
    )
    return folder


def maker_of(recipe: FrameRecipe, real: Sequence[Recording], synthetic: Sequence[Recording]) -> BatchMaker:
    """What makes the recipe's batches of whole sounds: others than those of the first stage."""
    return BatchMaker(
        real,
        synthetic,
        RuleCaptioner(),
        synthetic_per_epoch=recipe.synthetic_per_epoch,
        batch_size=recipe.batch_size,
        seed=recipe.schedule.seed + 1,
    )


def _freeze(model: Any) -> None:
    """Keeps the text tower, the temperatures and the features' normalisation as they are."""
    for module in (model.text_model, model.text_projection, model.audio_model.audio_encoder.batch_norm):
        module.eval().requires_grad_(False)
    model.logit_scale_a.requires_grad_(False)
    model.logit_scale_t.requires_grad_(False)
