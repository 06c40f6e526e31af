"""Labelled clips: their split by source recording, their targets, and the order in which an epoch hears them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from clapboard.labels import Control, LabelSpace

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class LabelledClip:
    """One task's audio and what people say of it."""

    path: Path
    group: str  # its source recording: clips of one never lie in two splits
    targets: Mapping[str, tuple[str, ...]]  # control → the labels chosen; a control that isn't named wasn't answered
    split: Split = "train"
    weight: float = 1.0  # how often it is heard, relative to others


@dataclass(frozen=True, eq=False)
class Targets:
    """What is known of N clips about one control: `truth[i]` counts where `known[i]`."""

    truth: npt.NDArray[np.bool_]  # [N, L]
    known: npt.NDArray[np.bool_]  # [N]


@dataclass(frozen=True)
class Counts:
    """How many clips have each label, by split and control, and how many answers could not be used."""

    answers: Mapping[str, Mapping[str, int]]  # split → control → clips with an answer that can be used
    labels: Mapping[str, Mapping[str, Mapping[str, int]]]  # split → control → label → clips
    unusable: int  # answers with a label that the config no longer has, or none or two for one


def split_clips(clips: Sequence[LabelledClip], *, validation_share: float = 0.2, seed: int = 0) -> list[LabelledClip]:
    """The clips with new splits «train» and «validation», drawn by source recording, evenly over the labels.

    Clips of the split «test» keep it, and others of the same recordings are left out. A label's only recording goes to
    «train».
    """
    tested = {clip.group for clip in clips if clip.split == "test"}
    by_group: dict[str, list[LabelledClip]] = {}
    for clip in sorted(clips, key=lambda clip: (clip.group, str(clip.path))):
        if clip.group not in tested:
            by_group.setdefault(clip.group, []).append(clip)
    chosen = _validation_groups(by_group, validation_share, np.random.default_rng(seed))
    split: dict[str, Split] = {group: "validation" if group in chosen else "train" for group in by_group}
    return [
        clip if clip.split == "test" else replace(clip, split=split[clip.group])
        for clip in clips
        if clip.split == "test" or clip.group in split
    ]


def _validation_groups(
    by_group: Mapping[str, Sequence[LabelledClip]], share: float, rng: np.random.Generator
) -> set[str]:
    """Groups that bring every label near its share; the largest are placed first, so that small ones even it out."""
    counts = {group: Counter(name for clip in clips for name in _names(clip)) for group, clips in by_group.items()}
    groups_with = Counter(name for count in counts.values() for name in count)
    wanted = Counter[tuple[str, str]]()
    for count in counts.values():
        wanted.update(count)
    missing = {name: share * number for name, number in wanted.items()}
    shuffled = [str(group) for group in rng.permutation(sorted(by_group))]
    chosen: set[str] = set()
    for group in sorted(shuffled, key=lambda group: -len(by_group[group])):
        count = counts[group]
        if any(groups_with[name] == 1 for name in count):
            continue
        # Taken if the squared distance from what is wanted shrinks, each label by its own measure.
        gain = sum((2 * missing[name] * number - number**2) / wanted[name] for name, number in count.items())
        if gain > 0:
            chosen.add(group)
            for name, number in count.items():
                missing[name] -= number
                groups_with[name] -= 1
    return chosen


def _names(clip: LabelledClip) -> list[tuple[str, str]]:
    """(control, label) of each label chosen; an answer without labels is one too."""
    return [(control, label) for control, labels in clip.targets.items() for label in labels or ("",)]


def targets_of(control: Control, clips: Sequence[LabelledClip]) -> Targets:
    """The control's targets. An answer that doesn't fit the control isn't known."""
    place = {label.value: index for index, label in enumerate(control.labels)}
    truth = np.zeros((len(clips), len(place)), bool)
    known = np.zeros(len(clips), bool)
    for index, clip in enumerate(clips):
        if _fits(control, clip):
            known[index] = True
            truth[index, [place[label] for label in clip.targets[control.name]]] = True
    return Targets(truth, known)


def count_labels(label_space: LabelSpace, clips: Sequence[LabelledClip]) -> Counts:
    """What there is to learn from and to judge by."""
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
    chosen = clip.targets.get(control.name)
    if chosen is None or not {label.value for label in control.labels}.issuperset(chosen):
        return False
    return control.multiple or len(chosen) == 1


def balanced_order(
    targets: Sequence[Targets], weights: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """N draws out of N clips, `[N]`, so that rare labels are heard as often as frequent ones.

    A clip's share is that of its rarest label; with equal shares each clip is drawn exactly once. An answer that chose
    nothing counts as a label of its own.
    """
    shares = np.zeros(len(weights))
    for control in targets:
        with_none = np.column_stack([control.truth, control.known & ~control.truth.any(axis=1)])
        rarity = 1 / np.maximum(with_none.sum(axis=0), 1)
        shares = np.maximum(shares, (with_none * rarity).max(axis=1))
    expected = np.cumsum(shares * weights)
    steps = np.floor(expected / expected[-1] * len(weights) + rng.random()).astype(int)
    times = np.diff(steps, prepend=0)  # a clip that is due 1.3 times is drawn once or twice
    return rng.permutation(np.repeat(np.arange(len(weights)), times))
