"""Labelled clips: their split by source recording, their targets, and the order of an epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from clapboard.labels.label_space import Control, LabelSpace

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class LabelledClip:
    """One task's audio and the labels that people gave it."""

    path: Path
    group: str  # its source recording; the clips of a recording are all in one split
    targets: Mapping[str, tuple[str, ...]]  # control → chosen labels; a control that is missing wasn't answered
    split: Split = "train"
    weight: float = 1.0  # how often it is drawn, relative to others
    channel: str = ""  # the one to decode; empty: all of them
    longest_s: float = math.inf  # a longer recording can't be read
    evidence: tuple[str, ...] = ()  # the controls whose labels may judge a model that hasn't learnt from the clip


@dataclass(frozen=True, eq=False)
class Targets:
    """The answers to one control of N clips: row `truth[i]` is valid where `known[i]` is true."""

    truth: npt.NDArray[np.bool_]  # [N, L]
    known: npt.NDArray[np.bool_]  # [N]


@dataclass(frozen=True)
class Counts:
    """How many clips have each label, by split and control, and how many answers can't be used."""

    answers: Mapping[str, Mapping[str, int]]  # split → control → clips with a usable answer
    labels: Mapping[str, Mapping[str, Mapping[str, int]]]  # split → control → label → clips
    unusable: int  # answers with a label missing from the config, or not exactly one where labels exclude each other


def split_clips(clips: Sequence[LabelledClip], *, validation_share: float = 0.2, seed: int = 0) -> list[LabelledClip]:
    """Returns the clips with new splits, train and validation, drawn by source recording, evenly over the labels.

    Test clips stay in test, and other clips of their recordings are left out. A label's only recording goes to train.
    """
    tested = {clip.group for clip in clips if clip.split == "test"}
    by_group: dict[str, list[LabelledClip]] = {}
    for clip in sorted(clips, key=lambda clip: (clip.group, str(clip.path))):
        if clip.group not in tested:
            by_group.setdefault(clip.group, []).append(clip)
    validation = _validation_groups(by_group, validation_share, np.random.default_rng(seed))
    split: dict[str, Split] = {group: "validation" if group in validation else "train" for group in by_group}
    return [
        clip if clip.split == "test" else replace(clip, split=split[clip.group])
        for clip in clips
        if clip.split == "test" or clip.group in split
    ]


def _validation_groups(
    by_group: Mapping[str, Sequence[LabelledClip]], share: float, rng: np.random.Generator
) -> set[str]:
    """Groups that bring each label near its share. The largest are placed first, so that small ones can even it out."""
    counts = {group: Counter(name for clip in clips for name in _names(clip)) for group, clips in by_group.items()}
    groups_with = Counter(name for count in counts.values() for name in count)
    totals = Counter[tuple[str, str]]()
    for count in counts.values():
        totals.update(count)
    missing = {name: share * number for name, number in totals.items()}
    shuffled = [str(group) for group in rng.permutation(sorted(by_group))]
    chosen: set[str] = set()
    for group in sorted(shuffled, key=lambda group: -len(by_group[group])):
        count = counts[group]
        if any(groups_with[name] == 1 for name in count):
            continue
        # Chosen if that shrinks the squared distances from the shares, each relative to the label's total.
        gain = sum((2 * missing[name] * number - number**2) / totals[name] for name, number in count.items())
        if gain > 0:
            chosen.add(group)
            for name, number in count.items():
                missing[name] -= number
                groups_with[name] -= 1
    return chosen


def _names(clip: LabelledClip) -> list[tuple[str, str]]:
    """(control, label) of each chosen label; an answer without labels counts as the label ""."""
    return [(control, label) for control, labels in clip.targets.items() for label in labels or ("",)]


def targets_of(control: Control, clips: Sequence[LabelledClip]) -> Targets:
    """The clips' targets for the control. An answer that doesn't fit the control counts as unknown."""
    place = {label.value: index for index, label in enumerate(control.labels)}
    truth = np.zeros((len(clips), len(place)), bool)
    known = np.zeros(len(clips), bool)
    for index, clip in enumerate(clips):
        if _fits(control, clip):
            known[index] = True
            truth[index, [place[label] for label in clip.targets[control.name]]] = True
    return Targets(truth, known)


def count_labels(label_space: LabelSpace, clips: Sequence[LabelledClip]) -> Counts:
    """Counts the usable answers and labels of each split."""
    by_split = {split: [c for c in clips if c.split == split] for split in ("train", "validation", "test")}
    answers: dict[str, dict[str, int]] = {split: {} for split in by_split}
    labels: dict[str, dict[str, dict[str, int]]] = {split: {} for split in by_split}
    for split, part in by_split.items():
        for control in label_space.predicted:
            targets = targets_of(control, part)
            names = (label.value for label in control.labels)
            answers[split][control.name] = int(targets.known.sum())
            labels[split][control.name] = dict(zip(names, targets.truth.sum(axis=0).tolist(), strict=True))
    unusable = sum(
        control.name in clip.targets and not _fits(control, clip) for control in label_space.predicted for clip in clips
    )
    return Counts(answers, labels, unusable)


def _fits(control: Control, clip: LabelledClip) -> bool:
    """Whether the clip has an answer that the control, as it is now, allows."""
    answer = clip.targets.get(control.name)
    if answer is None or not {label.value for label in control.labels}.issuperset(answer):
        return False
    return control.multiple or len(answer) == 1


def balanced_order(
    targets: Sequence[Targets], weights: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The indices `[N]` of N draws out of N clips, in which rare labels are as frequent as common ones.

    A clip's share is that of its rarest label; with equal shares each clip is drawn exactly once. An answer without
    labels counts as a label of its own.
    """
    shares = np.zeros(len(weights))
    for control in targets:
        with_none = np.column_stack([control.truth, control.known & ~control.truth.any(axis=1)])
        rarity = 1 / np.maximum(with_none.sum(axis=0), 1)
        shares = np.maximum(shares, (with_none * rarity).max(axis=1))
    expected = np.cumsum(shares * weights)
    steps = np.floor(expected / expected[-1] * len(weights) + rng.random()).astype(int)
    times = np.diff(steps, prepend=0)  # a clip with an expectation of 1.3 is drawn once or twice
    return rng.permutation(np.repeat(np.arange(len(weights)), times))
