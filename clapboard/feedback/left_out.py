"""Annotations that aren't learnt from, by task and reason, so that none is ignored silently. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clapboard.plurals import counted

_NAMED = 5


@dataclass(frozen=True)
class Tasks:
    """Tasks whose labels for a control are left out."""

    control: str
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class UnknownLabel:
    """A label in annotations that the label config doesn't have, perhaps because it was renamed there."""

    control: str
    label: str
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class LeftOut:
    """The tasks that are left out, by reason."""

    ties: tuple[Tasks, ...] = ()  # no majority
    several: tuple[Tasks, ...] = ()  # several labels in a single-label control
    unknown: tuple[UnknownLabel, ...] = ()
    skipped: tuple[int, ...] = ()  # by every annotator
    extents: tuple[Tasks, ...] = ()  # with a region that has no length or lies outside the recording

    @property
    def sentence(self) -> str:
        """All reasons but skipping, which was intended, in a sentence; empty if there are none."""
        return left_out_sentence(
            [(tie.control, len(tie.tasks)) for tie in self.ties],
            [(several.control, len(several.tasks)) for several in self.several],
            [(unknown.label, len(unknown.tasks)) for unknown in self.unknown],
            [(extent.control, len(extent.tasks)) for extent in self.extents],
        )


def left_out_sentence(
    ties: Sequence[tuple[str, int]],
    several: Sequence[tuple[str, int]],
    unknown: Sequence[tuple[str, int]],
    extents: Sequence[tuple[str, int]] = (),
) -> str:
    """The sentence from numbers of tasks: by label for unknown labels, by control for the other reasons."""
    reasons = [f"{counted(number, 'task')} without a majority for “{control}”" for control, number in ties]
    reasons += [
        f"{counted(number, 'task')} with several labels for “{control}”, which takes one" for control, number in several
    ]
    reasons += [
        f"{counted(number, 'task')} with a region of “{control}” that has no length or lies outside the recording"
        for control, number in extents
    ]
    reasons += [f"{counted(number, 'task')} labelled “{label}”" for label, number in unknown[:_NAMED]]
    if len(unknown) > _NAMED:
        reasons.append(f"{counted(len(unknown) - _NAMED, 'other label')}")
    if unknown:
        reasons[-1] += ", which the label config doesn't have (any more)"
    return f"Left out of learning: {'; '.join(reasons)}." if reasons else ""


class LeftOutCollector:
    """Collects what is left out."""

    def __init__(self) -> None:
        self._ties: dict[str, set[int]] = defaultdict(set)
        self._several: dict[str, set[int]] = defaultdict(set)
        self._unknown: dict[tuple[str, str], set[int]] = defaultdict(set)
        self._skipped: set[int] = set()
        self._extents: dict[str, set[int]] = defaultdict(set)

    def tie(self, control: str, task: int) -> None:
        """The task has no majority for the control."""
        self._ties[control].add(task)

    def several(self, control: str, task: int) -> None:
        """An annotation has several labels for the single-label control."""
        self._several[control].add(task)

    def unknown(self, control: str, labels: Iterable[str], task: int) -> None:
        """An annotation has labels that the control doesn't have."""
        for label in labels:
            self._unknown[control, label].add(task)

    def extent(self, control: str, task: int) -> None:
        """An annotation has a region of no length, or outside the recording."""
        self._extents[control].add(task)

    def skipped(self, task: int) -> None:
        """Every annotator skipped the task."""
        self._skipped.add(task)

    def result(self) -> LeftOut:
        """All of it, in order."""
        return LeftOut(
            tuple(Tasks(control, tuple(sorted(tasks))) for control, tasks in sorted(self._ties.items())),
            tuple(Tasks(control, tuple(sorted(tasks))) for control, tasks in sorted(self._several.items())),
            tuple(UnknownLabel(*name, tuple(sorted(tasks))) for name, tasks in sorted(self._unknown.items())),
            tuple(sorted(self._skipped)),
            tuple(Tasks(control, tuple(sorted(tasks))) for control, tasks in sorted(self._extents.items())),
        )
