"""Few-shot evaluation: the accuracy of the methods in service, and of others, by the number of labels a class.

Each seed draws its own labelled clips, and larger draws include the smaller ones. Clips of one source recording are
never on two sides. All methods get the same draws, so that their differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clapboard.errors import TrainingError
from clapboard.suggest.head import scores_of_all
from training.evaluate import Report, report
from training.evaluation.contenders import METHODS, ZERO_SHOT, Draw, Finetune, accuracies
from training.evaluation.listed_clips import EmbeddedClips, ListedClip


@dataclass(frozen=True)
class Plan:
    """The draws to make. With a test fold, the other folds give the labels; else each seed halves the groups."""

    shots: tuple[int, ...]
    num_seeds: int
    num_finetuned_seeds: int  # finetuning is slow: only the first so many seeds do it
    test_fold: str | None
    held_out_share: float  # of the clips that aren't tested on: the gate judges by them, and they are never drawn


@dataclass(frozen=True)
class Point:
    """One method's accuracy at one number of labels a class; None where it can't be used with any seed."""

    method: str
    shots: int
    num_seeds: int  # with which it could be used
    mean: float | None
    worst: float | None
    difference: float | None  # the mean difference from zero-shot on the same draw
    worst_difference: float | None


def zero_shot_report(clips: EmbeddedClips) -> Report:
    """The report on zero-shot scores. Raises `TrainingError` if there are no clips."""
    if not clips.clips:
        raise TrainingError("None of the clips can be decoded: check their files.")
    scores = scores_of_all(clips.control, clips.zero_shot.controls[0], clips.windows)
    return report(scores, clips.truth, clips.values, multiple=False)


def choose_test_fold(clips: Sequence[ListedClip], wanted: str | None) -> str | None:
    """The fold to test on: `wanted`, or else the last of several folds, or else None.

    Raises `TrainingError` if the wanted fold doesn't exist, or is the only one.
    """
    folds = sorted({clip.fold for clip in clips if clip.fold}, key=lambda fold: (len(fold), fold))
    if wanted is None:
        return folds[-1] if len(folds) > 1 else None
    if wanted not in folds:
        remedy = f"choose from {', '.join(folds)}" if folds else "the manifest names no folds"
        raise TrainingError(f"Fold {wanted} doesn't exist: {remedy}.")
    if len(folds) == 1:
        raise TrainingError(f"Fold {wanted} is the only one: leave --test-fold out, and each seed halves the groups.")
    return wanted


def few_shot(
    clips: EmbeddedClips, plan: Plan, finetune: Finetune, *, on_draw: Callable[[], None] = lambda: None
) -> list[Point]:
    """The points of each number of shots and each method. `on_draw` is called after each draw.

    Raises `TrainingError` if there is nothing to test on or to learn from.
    """
    accuracy_pairs: dict[tuple[int, str], list[tuple[float, float]]] = {}  # the method's, and zero-shot's
    for seed in range(plan.num_seeds):
        tune = finetune if seed < plan.num_finetuned_seeds else None
        for draw in draws(clips, plan, seed):
            figures = accuracies(draw, tune)
            for method, accuracy in figures.items():
                accuracy_pairs.setdefault((draw.shots, method), []).append((accuracy, figures[ZERO_SHOT]))
            on_draw()
    return [
        _point(shots, method, accuracy_pairs.get((shots, method), [])) for shots in plan.shots for method in METHODS
    ]


def draws(clips: EmbeddedClips, plan: Plan, seed: int) -> Iterator[Draw]:
    """The seed's draw for each number of shots. A class with fewer clips gives all of them.

    Raises `TrainingError` if there is nothing to test on or to learn from.
    """
    rng = np.random.default_rng(seed)
    is_test = _test_side(clips, plan.test_fold, rng)
    is_rest = ~np.isin(clips.groups, clips.groups[is_test])
    for side, purpose in ((is_test, "test on"), (is_rest, "learn from")):
        if not side.any():
            raise TrainingError(f"Nothing is left to {purpose}: groups stay together, so list clips of more groups.")
    test, rest = clips.take(np.flatnonzero(is_test)), clips.take(np.flatnonzero(is_rest))
    is_held_out = split_off(rest, plan.held_out_share, rng)
    held_out, labelled = rest.take(np.flatnonzero(is_held_out)), rest.take(np.flatnonzero(~is_held_out))
    order = rng.permutation(len(labelled.clips))
    by_label = [order[labelled.labels[order] == label] for label in range(len(clips.values))]
    for shots in plan.shots:
        support = labelled.take(np.concatenate([places[:shots] for places in by_label]))
        yield Draw(seed, shots, support, held_out, test)


def split_off(clips: EmbeddedClips, share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A mask `[N]` of whole groups, drawn in random order, that brings each label near the share.

    A label's last group is never taken.
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
        gain = ((2 * missing * count - count**2)[has] / totals[has]).sum()  # the decrease in squared distance
        if gain > 0 and (groups_left[has] > 1).all():
            taken.append(group)
            missing = missing - count
            groups_left = groups_left - has
    return np.isin(clips.groups, taken)


def _test_side(clips: EmbeddedClips, test_fold: str | None, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    if test_fold is None:
        return split_off(clips, 0.5, rng)
    return np.array([clip.fold == test_fold for clip in clips.clips], bool)


def _point(shots: int, method: str, figures: Sequence[tuple[float, float]]) -> Point:
    """The point of a method's accuracies, each paired with zero-shot's accuracy on the same draw."""
    if not figures:
        return Point(method, shots, 0, None, None, None, None)
    own, zero_shot = np.array(figures).T
    lead = own - zero_shot
    return Point(method, shots, len(own), float(own.mean()), float(own.min()), float(lead.mean()), float(lead.min()))
