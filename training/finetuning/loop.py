"""What finetuning and cross-fitting share: their clips, the outputs of the frozen stages, and the loop over epochs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.model.device import training_dtype
from clapboard.suggest.prediction import space_id
from training import checkpoint
from training.finetuning.hidden import HiddenStates, compute_hidden_states
from training.finetuning.labelled import LabelledClip, targets_of
from training.finetuning.memory import Portion
from training.finetuning.tower import Tower
from training.finetuning.trainer import FinetuneConfig, Trainer

RECIPE = 3
"""Incremented when states saved before can no longer be used."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come. In epoch 0 the clips go through the frozen stages; None: not yet known."""

    epoch: int
    epochs: int  # at most
    clips_heard: int  # clips done in this epoch
    clips: int
    loss: float | None = None
    validation: float | None = None  # accuracy; mAP where labels don't exclude each other
    eta_s: float | None = None  # at most
    fold: int = 0  # from 1: the model that answers for the clips of this fold
    folds: int = 0


def usable_clips(label_space: LabelSpace, clips: Sequence[LabelledClip]) -> list[LabelledClip]:
    """The clips of train and validation that have an answer to any control, in a fixed order."""
    is_answered = np.any([targets_of(control, clips).known for control in label_space.predicted], axis=0)
    usable = [clip for clip, answered in zip(clips, is_answered, strict=True) if answered and clip.split != "test"]
    return sorted(usable, key=lambda clip: (str(clip.path), clip.group))


def freeze(
    encoder: ClapEncoder,
    clips: Sequence[LabelledClip],
    config: FinetuneConfig,
    out: Path,
    key: str,
    on_progress: Callable[[Progress], None],
) -> tuple[Tower, Portion, HiddenStates]:
    """The tower with the config's trainable stages, and the hidden states that its frozen part gives for all clips."""
    assert config.rung != "auto"
    dtype = training_dtype(config.dtype, encoder.device)
    tower, portion = Tower(encoder.model, config.rung, dtype), Portion(encoder.batch_size)
    started = time.monotonic()

    def lower(features: torch.Tensor) -> torch.Tensor:
        def attempt(size: int) -> torch.Tensor:
            return torch.cat([tower.lower(part.to(encoder.device)).float() for part in torch.split(features, size)])

        return portion.run(attempt)

    def on_clip(num_done: int) -> None:
        eta_s = (time.monotonic() - started) / num_done * (len(clips) - num_done)
        on_progress(Progress(0, 2 * config.epochs, num_done, len(clips), eta_s=eta_s))

    log_mel = deepcopy(encoder.log_mel).cpu().float()  # training needs no float64
    hidden = compute_hidden_states(
        out, key, clips, lower, log_mel, num_views=config.num_views, seed=config.seed, on_clip=on_clip
    )
    return tower, portion, hidden


def run_loop(
    trainer: Trainer,
    file: Path,
    *,
    epochs: int,
    key: str,
    on_progress: Callable[[Progress], None],
    epochs_before: int = 0,
    epochs_to_come: int = 0,
    fold: tuple[int, int] = (0, 0),
) -> None:
    """Trains from the state in `file`, if any, to the last epoch; progress counts the loops before and after too.

    `fold` is the fold that the model will answer for, and the number of folds.
    """
    if state := checkpoint.load_state(file, key):
        trainer.load_state(state)
    while trainer.epoch < epochs:
        started = time.monotonic()
        trainer.train_epoch()
        checkpoint.save_state(file, trainer.state() | {"key": key})
        epochs_left = epochs - trainer.epoch + epochs_to_come
        point = trainer.curve[-1]
        on_progress(
            Progress(
                epoch=epochs_before + trainer.epoch,
                epochs=epochs_before + epochs + epochs_to_come,
                clips_heard=trainer.num_clips,
                clips=trainer.num_clips,
                loss=point["loss"],
                validation=None if epochs_before or fold[0] else point["figure"],
                eta_s=epochs_left * (time.monotonic() - started),
                fold=fold[0],
                folds=fold[1],
            )
        )


def run_key(
    encoder: ClapEncoder, label_space: LabelSpace, clips: Sequence[LabelledClip], config: FinetuneConfig
) -> str:
    """Hex digits over all arguments that decide the result: a saved state belongs to the run with the same key."""
    answers = [[str(clip.path), clip.group, dict(clip.targets), clip.split, clip.weight] for clip in clips]
    text = json.dumps(
        [RECIPE, encoder.identity.version, space_id(label_space), answers, asdict(config)], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
