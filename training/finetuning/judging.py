"""Judges a finetuned candidate: by the held-out clips first and, if they leave it open, by cross-fitted ones too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clapboard.errors import AudioError
from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.settings.settings import CALIBRATION
from clapboard.suggest.head import ZERO_SHOT, Head, scores_of_all, zero_shot_head
from clapboard.suggest.prediction import compute_class_weights
from clapboard.suggest.scoring import Array
from training.finetune import Candidate, FinetuneConfig, Progress
from training.finetuning.cross_fitting import Contenders, Embed, cross_fit, enough_evidence, joined
from training.finetuning.labelled import LabelledClip, targets_of
from training.finetuning.spec import SERVED_HEAD, RunSpec
from training.gate import GATE_SHARE, Rules, Trial, judge
from training.verdict import Verdict

FIRST_SHARE = 0.1
"""The part of the allowed false promotions that the look at the held-out clips alone may spend."""


@dataclass(frozen=True)
class Judged:
    """A candidate with its head, and the clips of its run."""

    candidate: Candidate
    encoder: ClapEncoder
    head: Head
    label_space: LabelSpace
    clips: Sequence[LabelledClip]


def judge_candidate(
    judged: Judged, spec: RunSpec, folder: Path, on_progress: Callable[[Progress], None] = lambda _: None
) -> Verdict:
    """The verdict. Cross-fitting is done only where the held-out clips are enough to judge by but leave it open."""
    rules = Rules(max_fall=spec.max_fall)
    learnt = [clip for clip in judged.clips if clip.split != "test"]
    # Fused encoders serve whole recordings, which cross-fitting doesn't see.
    is_open = judged.candidate.alpha > 0 and not spec.fusion and enough_evidence(learnt, spec.num_folds)
    whole = GATE_SHARE if spec.is_tried else 1.0
    share = whole * (FIRST_SHARE if is_open else 1.0)
    held_out = _held_out_trials(judged, spec, folder)
    verdict = judge(held_out, rules, earlier=spec.judged_before.get("held out", []), share=share)
    if verdict.promote or not verdict.looks or not is_open:
        return verdict
    start = spec.start or spec.base
    fitted = cross_fit(
        start,
        judged.label_space,
        judged.clips,
        FinetuneConfig(**spec.config),
        folder,
        trainable_stages=judged.candidate.trainable_stages,
        alpha=judged.candidate.alpha,
        num_folds=spec.num_folds,
        contenders=Contenders(
            _embed_unless(start, spec.served, spec),
            spec.served_head == ZERO_SHOT,
            _embed_unless(start, spec.base, spec),
        ),
        device=spec.device,
        on_progress=on_progress,
    )
    by_control = {trial.control: [trial] for trial in fitted}
    for trial in held_out:
        by_control.setdefault(trial.control, []).append(trial)
    both = judge(
        [joined(parts) for parts in by_control.values()],
        rules,
        earlier=spec.judged_before.get("all", []),
        share=whole * (1 - FIRST_SHARE),
    )
    return replace(both, looks=verdict.looks + both.looks)


def load(spec: RunSpec, model: str) -> ClapEncoder:
    """The encoder as it would serve."""
    return ClapEncoder.load(
        model,
        device=spec.device,
        dtype=spec.dtype,  # type: ignore[arg-type]  # the settings have validated it
        engine=spec.engine,  # type: ignore[arg-type]
        batch_size=spec.batch_size,
        fusion=spec.fusion,
        calibration=spec.calibrations.get(model, Path(model) / CALIBRATION),
    )


def text_head(encoder: ClapEncoder, label_space: LabelSpace) -> Head:
    """The encoder's zero-shot head."""
    return zero_shot_head(label_space, compute_class_weights(label_space, encoder.embed_texts), encoder.logit_scale)


def embed(encoder: ClapEncoder, clips: Sequence[LabelledClip]) -> list[Array | None]:
    """Each clip's windows' embeddings `[W, D]`; None for a clip that can't be decoded."""
    embeddings: list[Array | None] = []
    for clip in clips:
        embeddings.append(None)
        with contextlib.suppress(AudioError):
            embeddings[-1] = encoder.embed_file(clip.path, channel=clip.channel, longest_s=clip.longest_s)
    return embeddings


def _embed_unless(start: str, model: str, spec: RunSpec) -> Embed | None:
    """How to embed clips by the model; None if it is the one that tuning starts from."""
    if model == start:
        return None
    return lambda clips: embed(load(spec, model), clips)


def _held_out_trials(judged: Judged, spec: RunSpec, folder: Path) -> list[Trial]:
    """Each control's trial on the test clips that all contenders can decode."""
    label_space = judged.label_space
    base = load(spec, spec.base)
    served = base if spec.served == spec.base else load(spec, spec.served)
    served_head = (
        text_head(served, label_space)
        if spec.served_head == ZERO_SHOT
        else Head.from_bytes((folder / SERVED_HEAD).read_bytes())
    )
    contenders = [(judged.encoder, judged.head), (served, served_head), (base, text_head(base, label_space))]
    test = [clip for clip in judged.clips if clip.split == "test"]
    embedded = [dict(_embed_by_path(encoder, test)) for encoder, _ in contenders]
    readable = [clip for clip in test if all(clip.path in windows for windows in embedded)]
    trials = []
    for index, control in enumerate(label_space.predicted):
        targets = targets_of(control, readable)
        answered = [clip for clip, known in zip(readable, targets.known, strict=True) if known]
        candidate, in_service, zero_shot = (
            scores_of_all(control, head.controls[index], [windows[clip.path] for clip in answered])
            if answered
            else np.zeros((0, len(control.labels)), np.float32)
            for windows, (_, head) in zip(embedded, contenders, strict=True)
        )
        labels = tuple(label.value for label in control.labels)
        groups = [clip.group for clip in answered]
        truth = targets.truth[targets.known]
        trials.append(Trial(control.name, labels, control.multiple, groups, truth, candidate, in_service, zero_shot))
    return trials


def _embed_by_path(encoder: ClapEncoder, clips: Sequence[LabelledClip]) -> list[tuple[Path, Array]]:
    pairs = zip(clips, embed(encoder, clips), strict=True)
    return [(clip.path, windows) for clip, windows in pairs if windows is not None]
