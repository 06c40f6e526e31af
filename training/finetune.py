"""Finetunes a CLAP's audio tower on labelled clips: dataset → loop → evaluate → a candidate for `training.gate`.

A clip is classified by its embedding's cosines to the labels' texts and to what the labels add to them (the head that
serves); the text tower stays as it is, so that labels added later go on working. A run that is killed goes on from its
last epoch when it is started again with the same arguments, and ends with the very same weights.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapboard.clap import ClapEncoder
from clapboard.errors import TrainingError
from clapboard.head import zero_shot_head
from clapboard.labels import Control, LabelSpace
from clapboard.prediction import compute_class_weights, space_id
from training import checkpoint
from training.hidden import HiddenStates, compute_hidden_states, remove_hidden_states
from training.labelled import Counts, LabelledClip, count_labels, targets_of
from training.memory import Portion
from training.tower import Rung, Tower
from training.trainer import FinetuneConfig, Trainer, uses_bfloat16

__all__ = ["Candidate", "FinetuneConfig", "LabelledClip", "Progress", "choose_rung", "finetune"]


@dataclass(frozen=True)
class Progress:
    """How far a run is. In epoch 0 the clips are listened to; what isn't known yet is None."""

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
    before: float  # the validation figure of the model as it was
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
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Candidate:
    """The candidate in `out/candidate`: `base` tuned on the clips of «train», as far as those of «validation» gain.

    Raises `TrainingError` if there is too little to learn from, or too little memory or space; `ModelError` if `base`
    can't be used.
    """
    counts = count_labels(label_space, clips)
    clips = _usable(label_space, clips)
    config = replace(config, rung=choose_rung(label_space, counts, config))
    encoder = ClapEncoder.load(base, device=device, dtype="float32")
    key = _key(encoder, label_space, clips, config)
    finished = checkpoint.read_manifest(out / "candidate")
    if finished and finished["key"] == key:
        return _candidate(out / "candidate")
    out.mkdir(parents=True, exist_ok=True)

    hidden, trainer = _prepare(encoder, label_space, clips, config, out, key, on_progress)
    if state := checkpoint.load_state(out / "state.pt", key):
        trainer.load_state(state)
    while trainer.goes_on:
        started = time.monotonic()
        trainer.train_epoch()
        checkpoint.save_state(out / "state.pt", trainer.state() | {"key": key})
        on_progress(_progress(trainer, config, len(clips), time.monotonic() - started))
    alpha, after = trainer.interpolate()

    manifest = {
        "key": key,
        "base": base,
        "base_version": encoder.identity.version,
        "rung": config.rung,
        "alpha": alpha,
        "before": asdict(trainer.before),
        "after": asdict(after),
        "curve": trainer.curve,
        "counts": asdict(counts),
        "unreadable": hidden.unreadable(clips),
    }
    checkpoint.write_candidate(out / "candidate", encoder, asdict(config), manifest)
    (out / "state.pt").unlink()
    remove_hidden_states(out)
    return _candidate(out / "candidate")


def _usable(label_space: LabelSpace, clips: Sequence[LabelledClip]) -> list[LabelledClip]:
    """The clips to learn from and to validate on that have an answer, in an order of their own."""
    answered = np.any([targets_of(control, clips).known for control in label_space.predicted], axis=0)
    chosen = [clip for clip, usable in zip(clips, answered, strict=True) if usable and clip.split != "test"]
    return sorted(chosen, key=lambda clip: (str(clip.path), clip.group))


def choose_rung(label_space: LabelSpace, counts: Counts, config: FinetuneConfig) -> Rung:
    """The config's rung; for `auto` the highest that there are labels enough for, over training and validation.

    The least class decides, of those with `min_labels` clips or more; where labels don't exclude each other, having a
    label and not having it are two classes. Raises `TrainingError` if there are no two such classes, or if nothing is
    there to learn from or to validate on.
    """
    enough = [least for control in label_space.predicted if (least := _least_class(control, counts, config.min_labels))]
    if not enough:
        raise TrainingError(_too_few(label_space, counts, config.min_labels))
    for split in ("train", "validation"):
        if not any(counts.answers[split].values()):
            raise TrainingError(
                f"No labelled clip is there for {split}: clips of one recording stay together, so label some of other "
                "recordings."
            )
    if config.rung != "auto":
        return config.rung
    if min(enough) < config.stage4_labels:
        return "projection"
    return "stage4" if min(enough) < config.stages34_labels else "stages34"


def _least_class(control: Control, counts: Counts, min_labels: int) -> int:
    """The size of the least of the control's classes that have enough clips; 0 if there are no two of them."""
    sizes = list(_label_counts(control, counts).values())
    if control.multiple:
        answers = counts.answers["train"][control.name] + counts.answers["validation"][control.name]
        return min((least for size in sizes if (least := min(size, answers - size)) >= min_labels), default=0)
    enough = [size for size in sizes if size >= min_labels]
    return min(enough) if len(enough) > 1 else 0


def _label_counts(control: Control, counts: Counts) -> dict[str, int]:
    train, validation = (counts.labels[split][control.name] for split in ("train", "validation"))
    return {label: number + validation[label] for label, number in train.items()}


def _too_few(label_space: LabelSpace, counts: Counts, min_labels: int) -> str:
    found = [item for control in label_space.predicted for item in _label_counts(control, counts).items()]
    there = sorted((item for item in found if item[1]), key=lambda item: -item[1])
    remedy = f"label at least {min_labels} clips of each of two classes."
    if not there:
        return f"There are no labels to train on: {remedy}"
    if len(there) == 1 and not any(control.multiple for control in label_space.predicted):
        return f"“{there[0][0]}” is the only class that clips are labelled with ({there[0][1]}): {remedy}"
    named = ", ".join(f"“{label}” {number}" for label, number in there[:3])
    return f"There are too few labels to train on ({named}{', …' if len(there) > 3 else ''}): {remedy}"


def _prepare(
    encoder: ClapEncoder,
    label_space: LabelSpace,
    clips: Sequence[LabelledClip],
    config: FinetuneConfig,
    out: Path,
    key: str,
    on_progress: Callable[[Progress], None],
) -> tuple[HiddenStates, Trainer]:
    """The clips listened to, and the trainer at its start."""
    class_weights = compute_class_weights(label_space, encoder.embed_texts)
    zero_shot = zero_shot_head(label_space, class_weights, encoder.logit_scale)
    assert config.rung != "auto"
    tower = Tower(encoder.model, config.rung)
    portion = Portion(encoder.batch_size)
    half = uses_bfloat16(config.dtype, encoder.device)
    started = time.monotonic()

    @torch.no_grad()
    def lower(features: torch.Tensor) -> torch.Tensor:
        def attempt(size: int) -> torch.Tensor:
            with torch.autocast(encoder.device.type, torch.bfloat16, enabled=half):
                return torch.cat([tower.lower(part.to(encoder.device)).float() for part in torch.split(features, size)])

        return portion.run(attempt)

    def on_clip(heard: int) -> None:
        eta_s = (time.monotonic() - started) / heard * (len(clips) - heard)
        on_progress(Progress(0, config.epochs, heard, len(clips), eta_s=eta_s))

    hidden = compute_hidden_states(
        out,
        key,
        clips,
        lower,
        deepcopy(encoder.log_mel).cpu().float(),  # training needs no float64
        num_views=config.num_views,
        seed=config.seed,
        on_clip=on_clip,
    )
    _require_readable(clips, hidden)
    return hidden, Trainer(tower, label_space, zero_shot, clips, hidden, config, device=encoder.device, portion=portion)


def _require_readable(clips: Sequence[LabelledClip], hidden: HiddenStates) -> None:
    for split in ("train", "validation"):
        places = [place for clip, place in zip(clips, hidden.places, strict=True) if clip.split == split]
        if not any(places):
            raise TrainingError(f"None of the {len(places)} clips for {split} can be read: see to their audio files.")


def _progress(trainer: Trainer, config: FinetuneConfig, num_clips: int, epoch_s: float) -> Progress:
    point = trainer.curve[-1]
    eta_s = epoch_s * (config.epochs - trainer.epoch) if trainer.goes_on else 0.0
    figures = point["loss"], point["figure"]
    return Progress(trainer.epoch, config.epochs, num_clips, num_clips, *figures, eta_s)


def _candidate(folder: Path) -> Candidate:
    manifest = checkpoint.read_manifest(folder)
    assert manifest is not None
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
    text = json.dumps([encoder.identity.version, space_id(label_space), heard, asdict(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
