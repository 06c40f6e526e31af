"""Finetunes a CLAP's audio tower on labelled clips, and writes a candidate for `training.gate` to judge.

The tower is trained under the head that would be served, and the text tower stays as it is, so that labels added later
keep working. The clips of «validation» decide how much of the change to keep (WiSE-FT), not when to stop: with a dozen
clips, which epoch looks best is luck. Because labels are few, a second loop then learns from train and validation
together, and as much of its change is kept.

A run that was killed continues from its last epoch when it is started again with the same arguments, and ends with
identical weights.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapboard.errors import TrainingError
from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.model.device import training_dtype
from clapboard.plurals import counted
from clapboard.suggest.head import zero_shot_head
from clapboard.suggest.prediction import compute_class_weights, space_id
from training import checkpoint
from training.finetuning.hidden import HiddenStates, compute_hidden_states, remove_hidden_states
from training.finetuning.labelled import LabelledClip, count_labels, targets_of
from training.finetuning.memory import Portion
from training.finetuning.tower import Tower
from training.finetuning.tower_stages import TrainableStages
from training.finetuning.trainable_stages import choose_trainable_stages
from training.finetuning.trainer import FinetuneConfig, Indices, Trainer

_RECIPE = 3
"""Incremented when states saved before can no longer be used."""

__all__ = ["Candidate", "FinetuneConfig", "LabelledClip", "Progress", "choose_trainable_stages", "finetune"]


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


@dataclass(frozen=True)
class Candidate:
    """A finished checkpoint. Its `manifest` holds the base, config, label counts and validation curve."""

    folder: Path
    encoder_version: str
    trainable_stages: TrainableStages
    alpha: float  # the share of the tuned weights in it; 0: the base model unchanged
    before: float  # the validation figure of the base model with a fitted head
    after: float  # the same of the candidate
    manifest: Mapping[str, Any]


def finetune(
    base: str,
    label_space: LabelSpace,
    clips: Sequence[LabelledClip],
    config: FinetuneConfig,
    out: Path,
    *,
    device: str = "auto",
    fusion: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Candidate:
    """Tunes `base` on the clips of train and validation, never of test, and returns the candidate in `out/candidate`.

    Training always uses single windows; `fusion` is how the candidate will be served, and so part of its version.
    Raises `TrainingError` if there are too few labels, or too little memory or disk space, and `ModelError` if `base`
    can't be used.
    """
    counts = count_labels(label_space, clips)
    config = replace(config, rung=choose_trainable_stages(label_space, counts, config))
    clips = _usable_clips(label_space, clips)
    encoder = ClapEncoder.load(base, device=device, dtype="float32", engine="reference", fusion=fusion)
    key = _key(encoder, label_space, clips, config)
    manifest = checkpoint.read_manifest(out / "candidate")
    if manifest and manifest["key"] == key:  # an earlier run with these arguments has finished
        return _candidate(out / "candidate", manifest)
    out.mkdir(parents=True, exist_ok=True)

    loop = partial(_loop, epochs=config.epochs, key=key, on_progress=on_progress)
    tower, portion, hidden = _freeze(encoder, clips, config, out, key, on_progress)
    train, validation = _readable(clips, hidden)
    zero_shot = zero_shot_head(
        label_space, compute_class_weights(label_space, encoder.embed_texts), encoder.logit_scale
    )
    trainer = partial(
        Trainer, tower, label_space, zero_shot, clips, hidden, config, device=encoder.device, portion=portion
    )

    choosing = trainer(learn=train, validate=validation)
    loop(choosing, out / "choosing.pt", epochs_to_come=config.epochs)
    alpha, after = choosing.choose_alpha()
    final = trainer(learn=np.sort(np.concatenate([train, validation])), validate=validation[:0])
    if alpha > 0:
        loop(final, out / "final.pt", epochs_before=config.epochs)
    final.keep(alpha)

    manifest = {
        "key": key,
        "base": base,
        "base_version": encoder.identity.version,
        "rung": config.rung,
        "alpha": alpha,
        "before": asdict(choosing.before),
        "after": asdict(after),
        "curve": choosing.curve,
        "counts": asdict(counts),
        "unreadable": hidden.unreadable(clips),
    }
    manifest |= checkpoint.write_candidate(out / "candidate", encoder, asdict(config), manifest)
    _remove_states(out)
    return _candidate(out / "candidate", manifest)


def _remove_states(out: Path) -> None:
    """Deletes the files that only an unfinished run needs."""
    for file in (out / "choosing.pt", out / "final.pt"):
        file.unlink(missing_ok=True)
    remove_hidden_states(out)


def _loop(
    trainer: Trainer,
    file: Path,
    *,
    epochs: int,
    key: str,
    on_progress: Callable[[Progress], None],
    epochs_before: int = 0,
    epochs_to_come: int = 0,
) -> None:
    """Trains from the state in `file`, if any, to the last epoch; progress counts the loops before and after too."""
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
                validation=None if epochs_before else point["figure"],
                eta_s=epochs_left * (time.monotonic() - started),
            )
        )


def _usable_clips(label_space: LabelSpace, clips: Sequence[LabelledClip]) -> list[LabelledClip]:
    """The clips of train and validation that have an answer to any control, in a fixed order."""
    is_answered = np.any([targets_of(control, clips).known for control in label_space.predicted], axis=0)
    usable = [clip for clip, answered in zip(clips, is_answered, strict=True) if answered and clip.split != "test"]
    return sorted(usable, key=lambda clip: (str(clip.path), clip.group))


def _freeze(
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


def _readable(clips: Sequence[LabelledClip], hidden: HiddenStates) -> list[Indices]:
    """Indices of the readable clips of train and of validation. Raises `TrainingError` if either has none."""
    indices = []
    for split in ("train", "validation"):
        split_indices = [index for index, clip in enumerate(clips) if clip.split == split]
        indices.append(np.array([index for index in split_indices if hidden.places[index]], np.int64))
        if not len(indices[-1]):
            raise TrainingError(
                f"None of the {counted(len(split_indices), 'clip')} for {split} can be read: check their audio files."
            )
    return indices


def _candidate(folder: Path, manifest: Mapping[str, Any]) -> Candidate:
    return Candidate(
        folder=folder,
        encoder_version=manifest["encoder_version"],
        trainable_stages=manifest["rung"],
        alpha=manifest["alpha"],
        before=manifest["before"]["figure"],
        after=manifest["after"]["figure"],
        manifest=manifest,
    )


def _key(encoder: ClapEncoder, label_space: LabelSpace, clips: Sequence[LabelledClip], config: FinetuneConfig) -> str:
    """Hex digits over all arguments that decide the result: a saved state belongs to the run with the same key."""
    answers = [[str(clip.path), clip.group, dict(clip.targets), clip.split, clip.weight] for clip in clips]
    text = json.dumps(
        [_RECIPE, encoder.identity.version, space_id(label_space), answers, asdict(config)], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
