"""Finetunes a CLAP's audio tower on labelled clips, and writes a candidate for `training.gate` to judge.

The tower is trained under the head that would be served, and the text tower stays as it is, so that labels added later
keep working. The clips of «validation» decide how much of the change to keep (WiSE-FT), not when to stop: with a dozen
clips, which epoch looks best is luck. Because labels are few, a second loop then learns from train and validation
together, and as much of its change is kept.

A run that was killed continues from its last epoch when it is started again with the same arguments, and ends with
identical weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clapboard.errors import TrainingError
from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.plurals import counted
from clapboard.suggest.head import zero_shot_head
from clapboard.suggest.prediction import compute_class_weights
from training import checkpoint
from training.finetuning.hidden import HiddenStates, remove_hidden_states
from training.finetuning.labelled import LabelledClip, count_labels
from training.finetuning.loop import Progress, freeze, run_key, run_loop, usable_clips
from training.finetuning.tower_stages import TrainableStages
from training.finetuning.trainable_stages import choose_trainable_stages
from training.finetuning.trainer import FinetuneConfig, Indices, Trainer

__all__ = ["Candidate", "FinetuneConfig", "LabelledClip", "Progress", "choose_trainable_stages", "finetune"]


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
    keep_hidden_states: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Candidate:
    """Tunes `base` on the clips of train and validation, never of test, and returns the candidate in `out/candidate`.

    Training always uses single windows; `fusion` is how the candidate will be served, and so part of its version.
    Cross-fitting continues from the hidden states, if they are kept.
    Raises `TrainingError` if there are too few labels, or too little memory or disk space, and `ModelError` if `base`
    can't be used.
    """
    counts = count_labels(label_space, clips)
    config = replace(config, rung=choose_trainable_stages(label_space, counts, config))
    clips = usable_clips(label_space, clips)
    encoder = ClapEncoder.load(base, device=device, dtype="float32", engine="reference", fusion=fusion)
    key = run_key(encoder, label_space, clips, config)
    manifest = checkpoint.read_manifest(out / "candidate")
    if manifest and manifest["key"] == key:  # an earlier run with these arguments has finished
        return _candidate(out / "candidate", manifest)
    out.mkdir(parents=True, exist_ok=True)

    loop = partial(run_loop, epochs=config.epochs, key=key, on_progress=on_progress)
    tower, portion, hidden = freeze(encoder, clips, config, out, key, on_progress)
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
    for file in (out / "choosing.pt", out / "final.pt"):  # only an unfinished run needs them
        file.unlink(missing_ok=True)
    if not keep_hidden_states:
        remove_hidden_states(out)
    return _candidate(out / "candidate", manifest)


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
