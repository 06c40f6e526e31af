"""Annotators' regions of one task → the regions that most of them agree on. Pure.

Regions of different annotators are the same event if they have the same label and overlap by an IoU of at least 0.5;
the greatest overlaps are matched first, and an event has at most one region of each annotator. An event that most
annotators marked is agreed, from the median of their starts to the median of their ends. One that half of them marked
is unsettled: it is neither an event nor proof that there is none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

SAME_EVENT_IOU = 0.5
MAX_REGIONS = 5_000
"""Of all annotators, for one control and task: beyond that nothing is matched, since it could take hours."""


@dataclass(frozen=True)
class MarkedRegion:
    """One label of one annotator's region. Times in seconds from the recording's start; `channel` from 0."""

    label: str
    start_s: float
    end_s: float
    channel: int = 0


@dataclass(frozen=True)
class Marking:
    """All regions of one control that an annotator marked in a task; none is an answer too."""

    annotator: int
    model_version: str  # of the suggestion in view
    regions: tuple[MarkedRegion, ...]


@dataclass(frozen=True)
class AgreedRegion:
    """An event, with the annotators who marked it and the versions of the suggestions that they had in view."""

    label: str
    start_s: float
    end_s: float
    channel: int = 0
    annotators: tuple[int, ...] = ()
    versions: tuple[str, ...] = ()

    def as_json(self) -> list[Any]:
        """The region as the store keeps it."""
        return [self.label, self.start_s, self.end_s, self.channel, list(self.annotators), list(self.versions)]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> AgreedRegion:
        """The inverse of `as_json`."""
        label, start_s, end_s, channel, annotators, versions = values
        return cls(label, start_s, end_s, channel, tuple(annotators), tuple(versions))


def agree(markings: Sequence[Marking]) -> tuple[tuple[AgreedRegion, ...], tuple[AgreedRegion, ...]] | None:
    """The agreed and the unsettled regions, in the order of time; None if there are too many to be matched."""
    if len(markings) > 1 and sum(len(marking.regions) for marking in markings) > MAX_REGIONS:
        return None
    events = sorted(
        (_event(cluster, markings) for cluster in _clusters(markings)),
        key=lambda event: (event[1].start_s, event[1].end_s, event[1].label),
    )
    agreed = tuple(region for size, region in events if 2 * size > len(markings))
    unsettled = tuple(region for size, region in events if 2 * size == len(markings))
    return agreed, unsettled


_Item = tuple[int, MarkedRegion]  # the place of its marking, and a region of it


def _clusters(markings: Sequence[Marking]) -> Iterator[list[_Item]]:
    by_label: dict[tuple[str, int], list[_Item]] = defaultdict(list)
    for place, marking in enumerate(markings):
        for region in marking.regions:
            by_label[region.label, region.channel].append((place, region))
    for items in by_label.values():
        items.sort(key=lambda item: (item[1].start_s, item[1].end_s, markings[item[0]].annotator))
        yield from _matched(items)


def _matched(items: list[_Item]) -> Iterator[list[_Item]]:
    """The items in clusters, with at most one of each annotator."""
    overlaps = sorted(
        (-iou, first, second)
        for first, (place, region) in enumerate(items)
        for second in range(first + 1, len(items))
        if items[second][0] != place and (iou := _iou(region, items[second][1])) >= SAME_EVENT_IOU
    )
    cluster_of = {number: [number] for number in range(len(items))}
    for _, first, second in overlaps:
        one, other = cluster_of[first], cluster_of[second]
        if one is other or {items[number][0] for number in one} & {items[number][0] for number in other}:
            continue
        one += other
        for number in other:
            cluster_of[number] = one
    for number, cluster in cluster_of.items():
        if number == min(cluster):
            yield [items[member] for member in cluster]


def _iou(one: MarkedRegion, other: MarkedRegion) -> float:
    shared_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return max(0.0, shared_s) / (max(one.end_s, other.end_s) - min(one.start_s, other.start_s))


def _event(cluster: Sequence[_Item], markings: Sequence[Marking]) -> tuple[int, AgreedRegion]:
    """How many annotators marked the event, and the event."""
    of = [markings[place] for place, _ in cluster]
    regions = [region for _, region in cluster]
    return len(cluster), AgreedRegion(
        regions[0].label,
        median(region.start_s for region in regions),
        median(region.end_s for region in regions),
        regions[0].channel,
        tuple(sorted({marking.annotator for marking in of})),
        tuple(sorted({marking.model_version for marking in of} - {""})),
    )
