"""Cross-fitting: labelled clips as evidence beside the held-out ones (Stone 1974; Chernozhukov et al. 2018).

The clips are dealt into folds by recording. For each fold, an encoder is tuned and a head fitted as for the candidate,
but from the other folds alone; both then answer for the fold. So does the version in service, its head fitted to the
other folds too. A fold's encoder takes half the candidate's epochs, and the hidden states are those of the candidate's
run, so that three folds cost about half as much as the finetuning itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.plurals import counted
from clapboard.suggest.head import Head, scores_of_all, zero_shot_head
from clapboard.suggest.prediction import compute_class_weights
from clapboard.suggest.scoring import Array, mean_direction
from training.finetuning.labelled import LabelledClip, targets_of
from training.finetuning.loop import Progress, freeze, run_key, run_loop, usable_clips
from training.finetuning.tower_stages import TrainableStages
from training.finetuning.trainer import FinetuneConfig, Indices, Trainer
from training.fit_head import LabelledEmbeddings, fit_head
from training.gate import Trial

LEAST_CLIPS = 10
"""Fewer clips that may be evidence aren't worth the time."""

_EPOCHS = 0.5
"""The share of the candidate's epochs that a fold's model takes."""

Embed = Callable[[Sequence[LabelledClip]], list[Array | None]]
"""Windows' embeddings `[W, D]` of each clip by another encoder than the one tuned; None for an unreadable clip."""


@dataclass(frozen=True)
class Contenders:
    """The models beside the candidate. Without `Embed`, it is the encoder that the candidate was tuned from."""

    served: Embed | None
    served_by_texts: bool  # no head has been fitted to the serving encoder
    base: Embed | None


def assign_folds(clips: Sequence[LabelledClip], num_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each clip, from 1. The clips of a recording share one, and each label is spread evenly."""
    rng = np.random.default_rng(seed)
    by_group: dict[str, Counter[tuple[str, str]]] = {}
    for clip in clips:
        names = ((control, label) for control, labels in clip.targets.items() for label in labels or ("",))
        by_group.setdefault(clip.group, Counter()).update(names)
    shuffled = [str(group) for group in rng.permutation(sorted(by_group))]
    counts = [Counter[tuple[str, str]]() for _ in range(num_folds)]
    fold_of: dict[str, int] = {}
    for group in sorted(shuffled, key=lambda group: -by_group[group].total()):  # the largest first
        labels_of = by_group[group]
        loads = [(sum(count[name] for name in labels_of), count.total()) for count in counts]
        fold = loads.index(min(loads))
        counts[fold].update(labels_of)
        fold_of[group] = 1 + fold
    return np.array([fold_of[clip.group] for clip in clips], np.int64)


def enough_evidence(clips: Sequence[LabelledClip], num_folds: int) -> bool:
    """Whether cross-fitting these clips would give the gate something to judge by."""
    learnt = [clip for clip in clips if clip.split != "test"]
    groups = {clip.group for clip in learnt}
    return num_folds > 1 and len(groups) >= num_folds and sum(bool(clip.evidence) for clip in learnt) >= LEAST_CLIPS


def cross_fit(
    start: str,
    label_space: LabelSpace,
    clips: Sequence[LabelledClip],
    config: FinetuneConfig,
    out: Path,
    *,
    trainable_stages: TrainableStages,
    alpha: float,
    num_folds: int,
    contenders: Contenders,
    device: str = "auto",
    fusion: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Trial]:
    """Each control's trial on the clips that may be evidence, as answered by models that haven't learnt from them.

    `start`, `clips`, `config` and `out` are those of the candidate's run, and `trainable_stages` and `alpha` what came
    of it. A run that was killed continues from its last epoch. Raises what `finetune` raises.
    """
    config = replace(config, rung=trainable_stages)
    clips = usable_clips(label_space, clips)
    encoder = ClapEncoder.load(start, device=device, dtype="float32", engine="reference", fusion=fusion)
    out.mkdir(parents=True, exist_ok=True)
    key = run_key(encoder, label_space, clips, config)
    tower, portion, hidden = freeze(encoder, clips, config, out, key, on_progress)
    zero_shot = zero_shot_head(
        label_space, compute_class_weights(label_space, encoder.embed_texts), encoder.logit_scale
    )
    readable = np.array([index for index, place in enumerate(hidden.places) if place], np.int64)
    folds = assign_folds(clips, num_folds, config.seed)

    def trainer(learn: Indices, epochs: int) -> Trainer:
        fold_config = replace(config, epochs=epochs)
        return Trainer(
            tower, label_space, zero_shot, clips, hidden, fold_config,
            learn=learn, validate=learn[:0], device=encoder.device, portion=portion,
        )  # fmt: skip

    epochs = max(1, round(_EPOCHS * config.epochs))
    untuned = trainer(readable, epochs).embeddings(readable)
    served = _embeddings(contenders.served, clips, readable, untuned)
    base = _embeddings(contenders.base, clips, readable, untuned)
    answers = _Answers(label_space, zero_shot, clips, readable)
    for fold in range(1, num_folds + 1):
        is_other = folds[readable] != fold
        learn = readable[is_other]
        if not len(learn) or is_other.all():
            continue
        tuning = trainer(learn, epochs)
        run_loop(
            tuning, out / f"fold-{fold}.pt", epochs=epochs, key=key, on_progress=on_progress, fold=(fold, num_folds)
        )
        tuning.keep(alpha)
        tuned = tuning.embeddings(readable)
        fitted = [answers.head(embeddings, is_other) for embeddings in (tuned, served)]
        heads = [fitted[0], zero_shot if contenders.served_by_texts else fitted[1], zero_shot]
        answers.add(fold, ~is_other, list(zip((tuned, served, base), heads, strict=True)))
    return answers.trials()


class _Answers:
    """Collects the contenders' scores, fold by fold."""

    def __init__(
        self, label_space: LabelSpace, zero_shot: Head, clips: Sequence[LabelledClip], readable: Indices
    ) -> None:
        self._label_space = label_space
        self._zero_shot = zero_shot
        self._clips = [clips[index] for index in readable]
        self._targets = [targets_of(control, self._clips) for control in label_space.predicted]
        self._parts: list[list[Trial]] = [[] for _ in label_space.predicted]

    def head(self, embeddings: Sequence[Array], learn: npt.NDArray[np.bool_]) -> Head:
        """The head fitted to the labels of the clips to learn from, over the pool of all clips."""
        means = np.stack([mean_direction(windows) for windows in embeddings])
        weights = np.array([clip.weight for clip in self._clips], np.float32)
        labelled = {}
        for control, targets in zip(self._label_space.predicted, self._targets, strict=True):
            rows = learn & targets.known
            if rows.any():
                truth = targets.truth[rows].astype(np.float32)
                labelled[control.name] = LabelledEmbeddings(means[rows], truth, weights[rows])
        return fit_head(self._label_space, self._zero_shot, labelled, means)

    def add(
        self, fold: int, answered: npt.NDArray[np.bool_], contenders: Sequence[tuple[Sequence[Array], Head]]
    ) -> None:
        """Score the fold's clips by each contender's embeddings and head: candidate, in service, zero-shot."""
        for index, (control, targets) in enumerate(zip(self._label_space.predicted, self._targets, strict=True)):
            may_judge = np.array([control.name in clip.evidence for clip in self._clips], bool)
            rows = np.flatnonzero(answered & targets.known & may_judge)
            if not len(rows):
                continue
            candidate, in_service, zero_shot = (
                scores_of_all(control, head.controls[index], [embeddings[row] for row in rows])
                for embeddings, head in contenders
            )
            labels = tuple(label.value for label in control.labels)
            groups = [self._clips[row].group for row in rows]
            truth = targets.truth[rows]
            self._parts[index].append(
                Trial(
                    control.name,
                    labels,
                    control.multiple,
                    groups,
                    truth,
                    candidate,
                    in_service,
                    zero_shot,
                    [fold] * len(rows),
                )
            )

    def trials(self) -> list[Trial]:
        """Each control's trial over all folds; controls without evidence are left out."""
        return [joined(parts) for parts in self._parts if parts]


def joined(trials: Sequence[Trial]) -> Trial:
    """The trials of one control as one. Raises `IndexError` if there are none."""
    truth = np.concatenate([trial.truth for trial in trials])
    candidate = np.concatenate([trial.candidate for trial in trials])
    in_service = np.concatenate([trial.in_service for trial in trials])
    zero_shot = np.concatenate([trial.zero_shot for trial in trials])
    groups = [group for trial in trials for group in trial.groups]
    folds = [fold for trial in trials for fold in trial.folds or [0] * len(trial.groups)]
    first = trials[0]
    return Trial(first.control, first.labels, first.multiple, groups, truth, candidate, in_service, zero_shot, folds)


def _embeddings(
    embed: Embed | None, clips: Sequence[LabelledClip], readable: Indices, untuned: list[Array]
) -> list[Array]:
    """Each readable clip's embeddings by another encoder, or by the one that is tuned if `embed` is None."""
    if embed is None:
        return untuned
    embeddings = embed([clips[index] for index in readable])
    missing = sum(windows is None for windows in embeddings)
    if missing:
        raise ValueError(f"{counted(missing, 'clip')} can be decoded by one encoder but not by another")
    return [windows for windows in embeddings if windows is not None]
