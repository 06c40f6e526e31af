"""Finetunes a CLAP's audio tower on labelled clips: dataset → loop → validation → a candidate for `training.gate`.

A clip is classified by its embedding's cosines to the labels' texts and to what the labels add to them (the head that
serves); the text tower stays as it is, so that labels added later go on working. «validation» says how much of what
was learnt to keep (WiSE-FT), and not when to stop: of a dozen clips, one epoch or another is best by luck. Then all
clips are learnt from in that way, because labels are few.

A run that is killed goes on from its last epoch when it is started again with the same arguments, and ends with the
very same weights.
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

from clapboard.clap import ClapEncoder, training_dtype
from clapboard.errors import TrainingError
from clapboard.head import zero_shot_head
from clapboard.labels import LabelSpace
from clapboard.prediction import compute_class_weights, space_id
from training import checkpoint
from training.finetuning.hidden import HiddenStates, compute_hidden_states, remove_hidden_states
from training.finetuning.labelled import LabelledClip, count_labels, targets_of
from training.finetuning.ladder import choose_rung
from training.finetuning.memory import Portion
from training.finetuning.stages import Rung
from training.finetuning.tower import Tower
from training.finetuning.trainer import FinetuneConfig, Indices, Trainer

_RECIPE = 3
"""Counted up when a saved state wouldn't fit any more."""

__all__ = ["Candidate", "FinetuneConfig", "LabelledClip", "Progress", "choose_rung", "finetune"]


@dataclass(frozen=True)
class Progress:
    """How far a run is. In epoch 0 the clips are listened to; what isn't known is None."""

    epoch: int
    epochs: int  # at most
    clips_heard: int
    clips: int
    loss: float | None = None
    validation: float | None = None  # accuracy; mAP where labels don't exclude each other
    eta_s: float | None = None  # at most


@dataclass(frozen=True)
class Candidate:
    """A finished checkpoint. `manifest` holds its base, config, counts and validation curve."""

    folder: Path
    encoder_version: str
    rung: Rung
    alpha: float  # how much of the tuned weights is in it; 0: the model as it was
    before: float  # the validation figure of the model as it was, with a head
    after: float
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
    """The candidate in `out/candidate`: `base` tuned on the clips of «train» and «validation», never of «test».

    It hears windows, with `fusion` too, which is how it will be served then, and so part of its version. Raises
    `TrainingError` if there is too little to learn from, or too little memory or space; `ModelError` if `base` can't be
    used.
    """
    counts = count_labels(label_space, clips)
    config = replace(config, rung=choose_rung(label_space, counts, config))
    clips = _answered(label_space, clips)
    encoder = ClapEncoder.load(base, device=device, dtype="float32", engine="reference", fusion=fusion)
    key = _key(encoder, label_space, clips, config)
    finished = checkpoint.read_manifest(out / "candidate")
    if finished and finished["key"] == key:
        return _candidate(out / "candidate", finished)
    out.mkdir(parents=True, exist_ok=True)

    loop = partial(_loop, epochs=config.epochs, key=key, on_progress=on_progress)
    tower, portion, hidden = _listen(encoder, clips, config, out, key, on_progress)
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
    _tidy(out)
    return _candidate(out / "candidate", manifest)


def _tidy(out: Path) -> None:
    """Takes away what a run that has ended needs no more."""
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
    """Trains from where `file` stands; the epochs of the loops before and after this are told along."""
    if state := checkpoint.load_state(file, key):
        trainer.load_state(state)
    while trainer.epoch < epochs:
        started = time.monotonic()
        trainer.train_epoch()
        checkpoint.save_state(file, trainer.state() | {"key": key})
        left = epochs - trainer.epoch + epochs_to_come
        point = trainer.curve[-1]
        on_progress(
            Progress(
                epoch=epochs_before + trainer.epoch,
                epochs=epochs_before + epochs + epochs_to_come,
                clips_heard=trainer.num_clips,
                clips=trainer.num_clips,
                loss=point["loss"],
                validation=None if epochs_before else point["figure"],
                eta_s=left * (time.monotonic() - started),
            )
        )


def _answered(label_space: LabelSpace, clips: Sequence[LabelledClip]) -> list[LabelledClip]:
    """The clips to learn from and to validate on that have an answer, in an order of their own."""
    known = np.any([targets_of(control, clips).known for control in label_space.predicted], axis=0)
    chosen = [clip for clip, answered in zip(clips, known, strict=True) if answered and clip.split != "test"]
    return sorted(chosen, key=lambda clip: (str(clip.path), clip.group))


def _listen(
    encoder: ClapEncoder,
    clips: Sequence[LabelledClip],
    config: FinetuneConfig,
    out: Path,
    key: str,
    on_progress: Callable[[Progress], None],
) -> tuple[Tower, Portion, HiddenStates]:
    """The tower at the config's rung, and what its frozen part makes of all clips."""
    assert config.rung != "auto"
    dtype = training_dtype(config.dtype, encoder.device)
    tower, portion = Tower(encoder.model, config.rung, dtype), Portion(encoder.batch_size)
    started = time.monotonic()

    def lower(features: torch.Tensor) -> torch.Tensor:
        def attempt(size: int) -> torch.Tensor:
            return torch.cat([tower.lower(part.to(encoder.device)).float() for part in torch.split(features, size)])

        return portion.run(attempt)

    def on_clip(heard: int) -> None:
        eta_s = (time.monotonic() - started) / heard * (len(clips) - heard)
        on_progress(Progress(0, 2 * config.epochs, heard, len(clips), eta_s=eta_s))

    log_mel = deepcopy(encoder.log_mel).cpu().float()  # training needs no float64
    hidden = compute_hidden_states(
        out, key, clips, lower, log_mel, num_views=config.num_views, seed=config.seed, on_clip=on_clip
    )
    return tower, portion, hidden


def _readable(clips: Sequence[LabelledClip], hidden: HiddenStates) -> list[Indices]:
    """Indices of the clips for training and for validation that could be read. Raises `TrainingError` if none could."""
    found = []
    for split in ("train", "validation"):
        of_split = [index for index, clip in enumerate(clips) if clip.split == split]
        found.append(np.array([index for index in of_split if hidden.places[index]], np.int64))
        if not len(found[-1]):
            raise TrainingError(f"None of the {len(of_split)} clips for {split} can be read: see to their audio files.")
    return found


def _candidate(folder: Path, manifest: Mapping[str, Any]) -> Candidate:
    return Candidate(
        folder=folder,
        encoder_version=manifest["encoder_version"],
        rung=manifest["rung"],
        alpha=manifest["alpha"],
        before=manifest["before"]["figure"],
        after=manifest["after"]["figure"],
        manifest=manifest,
    )


def _key(encoder: ClapEncoder, label_space: LabelSpace, clips: Sequence[LabelledClip], config: FinetuneConfig) -> str:
    """Hex digits over all the arguments that decide the result: what a saved state belongs to."""
    heard = [[str(clip.path), clip.group, dict(clip.targets), clip.split, clip.weight] for clip in clips]
    text = json.dumps([_RECIPE, encoder.identity.version, space_id(label_space), heard, asdict(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
