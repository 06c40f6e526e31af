"""What one task teaches: its agreed labels, and the reasons why others of its labels aren't learnt from. Pure.

A task's labels depend on its own annotations and on the rules alone, so that they can be kept, and computed anew task
by task. All tasks' together are the `Consensus` of all annotations.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from clapboard.feedback.agreed_regions import AgreedRegion
from clapboard.feedback.consensus import Agreed, Consensus, TaskLabels, consensus
from clapboard.feedback.entries import Entry
from clapboard.feedback.left_out import LeftOut, LeftOutCollector
from clapboard.feedback.renames import Rename, renamed
from clapboard.labels.label_space import LabelSpace

CONSENSUS_RULES = 2
"""Raised by one when the same annotations would give other labels, so that stored labels are computed anew."""


class Reason(enum.StrEnum):
    """Why a task counts."""

    LABELLED = "labelled"  # it has labels of any control
    LABEL = "label"  # it has the label; an empty one: none of the control's labels apply
    TIE = "tie"
    SEVERAL = "several"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    EXTENT = "extent"


class Count(NamedTuple):
    """What tasks are counted by. The control and the label are empty where the reason isn't about one."""

    reason: Reason
    control: str = ""
    label: str = ""

    @property
    def key(self) -> int:
        """A hash in [0, 2⁶³), because names are too long for an index."""
        return _hash("\0".join(self))


@dataclass(frozen=True)
class LabelRules:
    """What turns annotations into labels: the controls of the label config, and the labels' former names."""

    label_space: LabelSpace
    renames: Sequence[Rename] = ()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever the same annotations may give other labels."""
        controls = [
            (control.name, control.multiple, control.predicted, [label.value for label in control.labels])
            for control in self.label_space.controls
        ]
        rules = repr((CONSENSUS_RULES, controls, self.label_space.visibility, list(self.renames)))
        return hashlib.sha256(rules.encode()).hexdigest()[:16]

    def consensus(self, standing: Iterable[Entry]) -> Consensus:
        """What annotators agree on, from the entries of standing annotations."""
        return consensus(renamed(standing, self.renames, self.label_space), self.label_space)


@dataclass(frozen=True)
class LabelledTask:
    """A task's agreed labels by control, and why others are left out."""

    labels: TaskLabels = field(default_factory=dict)
    left_out: frozenset[Count] = frozenset()

    @property
    def counts(self) -> Counter[Count]:
        """What the task counts for, once each."""
        counts = [*self.left_out]
        if self.labels:
            counts.append(Count(Reason.LABELLED))
        for control, agreed in self.labels.items():
            counts += [Count(Reason.LABEL, control, label) for label in agreed.labels or ("",)]
        return Counter(counts)


def by_task(agreed: Consensus) -> dict[int, LabelledTask]:
    """The consensus task by task; tasks without labels or reasons are absent."""
    left_out: dict[int, set[Count]] = defaultdict(set)
    for count, tasks in _reasons(agreed.left_out):
        for task in tasks:
            left_out[task].add(count)
    return {
        task: LabelledTask(agreed.labels.get(task, {}), frozenset(left_out[task]))
        for task in sorted(agreed.labels.keys() | left_out.keys())
    }


def together(tasks: Mapping[int, LabelledTask]) -> Consensus:
    """The consensus of these tasks, the inverse of `by_task`."""
    left_out = LeftOutCollector()
    for task, labelled in tasks.items():
        for reason, control, label in labelled.left_out:
            if reason is Reason.TIE:
                left_out.tie(control, task)
            elif reason is Reason.SEVERAL:
                left_out.several(control, task)
            elif reason is Reason.UNKNOWN:
                left_out.unknown(control, [label], task)
            elif reason is Reason.EXTENT:
                left_out.extent(control, task)
            else:
                left_out.skipped(task)
    labels = {task: labelled.labels for task, labelled in sorted(tasks.items()) if labelled.labels}
    return Consensus(labels, left_out.result())


def draw(project: int, task: int) -> int:
    """The task's place in [0, 2⁶³) in the order in which samples are drawn: random, and the same in every process."""
    return _hash(f"{project}:{task}")


def as_json(labelled: LabelledTask) -> dict[str, Any]:
    """The columns `labels` and `left_out`."""
    return {
        "labels": {
            control: [list(agreed.labels), agreed.weight, agreed.bulk, agreed.suggestion_biased, *_regions(agreed)]
            for control, agreed in labelled.labels.items()
        },
        "left_out": sorted([str(part) for part in count] for count in labelled.left_out),
    }


def from_json(labels: Mapping[str, Any], left_out: Iterable[Sequence[str]]) -> LabelledTask:
    """The inverse of `as_json`."""
    return LabelledTask(
        {control: _agreed(*values) for control, values in labels.items()},
        frozenset(Count(Reason(reason), control, label) for reason, control, label in left_out),
    )


def _regions(agreed: Agreed) -> list[Any]:
    """What is kept of an answer beside its labels; nothing of one without regions."""
    if not agreed.regions and not agreed.unsettled and agreed.recording_s is None:
        return []
    lists = [[region.as_json() for region in regions] for regions in (agreed.regions, agreed.unsettled)]
    return [*lists, agreed.recording_s]


def _agreed(
    names: Sequence[str],
    weight: float,
    bulk: bool,
    suggestion_biased: bool,
    regions: Iterable[Sequence[Any]] = (),
    unsettled: Iterable[Sequence[Any]] = (),
    recording_s: float | None = None,
) -> Agreed:
    agreed, open_ones = (tuple(map(AgreedRegion.from_json, part)) for part in (regions, unsettled))
    return Agreed(tuple(names), weight, bulk, suggestion_biased, agreed, open_ones, recording_s)


def _reasons(left_out: LeftOut) -> Iterator[tuple[Count, Sequence[int]]]:
    for tie in left_out.ties:
        yield Count(Reason.TIE, tie.control), tie.tasks
    for several in left_out.several:
        yield Count(Reason.SEVERAL, several.control), several.tasks
    for unknown in left_out.unknown:
        yield Count(Reason.UNKNOWN, unknown.control, unknown.label), unknown.tasks
    yield Count(Reason.SKIPPED), left_out.skipped
    for extent in left_out.extents:
        yield Count(Reason.EXTENT, extent.control), extent.tasks


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
