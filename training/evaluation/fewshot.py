"""How good suggestions are after so many labels a class: what serves, beside what else might.

Each seed draws labelled clips anew; with more labels a class, the earlier ones stay among them. Clips of one source
recording never lie on two sides. All methods get the same draws, so that their differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clapboard.errors import TrainingError
from clapboard.head import scores_of_all
from training.evaluate import Report, report
from training.evaluation.contenders import METHODS, ZERO_SHOT, Draw, Finetune, accuracies
from training.evaluation.listed_clips import EmbeddedClips, ListedClip


@dataclass(frozen=True)
class Plan:
    """Which draws are made. With a test fold, the other folds give the labels; without, each seed halves the groups."""

    shots: tuple[int, ...]
    num_seeds: int
    num_finetuned_seeds: int  # finetuning takes long: the first so many seeds
    test_fold: str | None
    set_aside_share: float  # of the clips that aren't tested on: they are what the gate judges by, and never drawn


@dataclass(frozen=True)
class Point:
    """One method's accuracy at one number of labels a class; None where it has no answer in any seed."""

    method: str
    shots: int
    num_seeds: int  # in which it has an answer
    mean: float | None
    worst: float | None
    difference: float | None  # from zero-shot on the same draw, in the mean
    worst_difference: float | None


def zero_shot_report(clips: EmbeddedClips) -> Report:
    """How well the labels' texts alone tell the clips apart. Raises `TrainingError` if there are no clips."""
    if not clips.clips:
        raise TrainingError("None of the clips can be decoded: see to their files.")
    scores = scores_of_all(clips.control, clips.zero_shot.controls[0], clips.windows)
    return report(scores, clips.truth, clips.values, multiple=False)


def choose_test_fold(clips: Sequence[ListedClip], wanted: str | None) -> str | None:
    """The fold to test on: the wanted one, else the last of several, else None.

    Raises `TrainingError` if there is no such fold, or no other one.
    """
    folds = sorted({clip.fold for clip in clips if clip.fold}, key=lambda fold: (len(fold), fold))
    if wanted is None:
        return folds[-1] if len(folds) > 1 else None
    if wanted not in folds:
        there = f"choose from {', '.join(folds)}" if folds else "the manifest names no folds"
        raise TrainingError(f"Fold {wanted} doesn't exist: {there}.")
    if len(folds) == 1:
        raise TrainingError(f"Fold {wanted} is the only one: leave --test-fold out, and each seed halves the groups.")
    return wanted


def few_shot(
    clips: EmbeddedClips, plan: Plan, finetune: Finetune, *, on_draw: Callable[[], None] = lambda: None
) -> list[Point]:
    """The points of every number of shots and method. `on_draw` hears of each draw that is done.

    Raises `TrainingError` if there is nothing to test on or to learn from.
    """
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for seed in range(plan.num_seeds):
        tune = finetune if seed < plan.num_finetuned_seeds else None
        for draw in draws(clips, plan, seed):
            figures = accuracies(draw, tune)
            for method, accuracy in figures.items():
                found.setdefault((draw.shots, method), []).append((accuracy, figures[ZERO_SHOT]))
            on_draw()
    return [_point(shots, method, found.get((shots, method), [])) for shots in plan.shots for method in METHODS]


def draws(clips: EmbeddedClips, plan: Plan, seed: int) -> Iterator[Draw]:
    """The seed's draw for each number of shots; a class that has fewer clips gives all of them.

    Raises `TrainingError` if there is nothing to test on or to learn from.
    """
    rng = np.random.default_rng(seed)
    is_test = _test_side(clips, plan.test_fold, rng)
    is_other = ~np.isin(clips.groups, clips.groups[is_test])
    for side, purpose in ((is_test, "test on"), (is_other, "learn from")):
        if not side.any():
            raise TrainingError(f"Nothing is left to {purpose}: groups stay together, so list clips of more groups.")
    test, others = clips.take(np.flatnonzero(is_test)), clips.take(np.flatnonzero(is_other))
    is_aside = split_off(others, plan.set_aside_share, rng)
    aside, labelled = others.take(np.flatnonzero(is_aside)), others.take(np.flatnonzero(~is_aside))
    order = rng.permutation(len(labelled.clips))
    by_label = [order[labelled.labels[order] == label] for label in range(len(clips.values))]
    for shots in plan.shots:
        support = labelled.take(np.concatenate([places[:shots] for places in by_label]))
        yield Draw(seed, shots, support, aside, test)


def split_off(clips: EmbeddedClips, share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which clips to take, `[N]`: whole groups in random order, as long as their labels come nearer to the share.

    A label's last group stays.
    """
    truth = clips.truth.astype(int)
    totals = truth.sum(axis=0)  # [L]
    groups = np.unique(clips.groups)
    counts = {group: truth[clips.groups == group].sum(axis=0) for group in groups}
    groups_left = np.sum([count > 0 for count in counts.values()], axis=0)
    missing = share * totals
    taken = []
    for group in rng.permutation(groups):
        count, has = counts[group], counts[group] > 0
        nearer = ((2 * missing * count - count**2)[has] / totals[has]).sum()  # how much the squared distance shrinks
        if nearer > 0 and (groups_left[has] > 1).all():
            taken.append(group)
            missing = missing - count
            groups_left = groups_left - has
    return np.isin(clips.groups, taken)


def _test_side(clips: EmbeddedClips, test_fold: str | None, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    if test_fold is None:
        return split_off(clips, 0.5, rng)
    return np.array([clip.fold == test_fold for clip in clips.clips], bool)


def _point(shots: int, method: str, figures: Sequence[tuple[float, float]]) -> Point:
    """The point of a method's accuracies, each beside zero-shot's of the same draw."""
    if not figures:
        return Point(method, shots, 0, None, None, None, None)
    own, zero_shot = np.array(figures).T
    lead = own - zero_shot
    return Point(method, shots, len(own), float(own.mean()), float(own.min()), float(lead.mean()), float(lead.min()))
