"""Acceptance: how suggestions fare, by class, kind of model, day, version and annotator, and annotators' time. Pure.

A suggestion is one control's labels for a clip, or one region. Acceptance is the number of accepted suggestions over
that of accepted, relabelled, moved and deleted ones. Added labels answer no suggestion, and skipped or bulk-accepted
tasks say nothing about one, so these three are only counted.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from clapboard.feedback.entries import Entry, Outcome
from clapboard.suggest.head import ZERO_SHOT

CORRECTED = (Outcome.RELABELLED, Outcome.MOVED, Outcome.DELETED)
JUDGED = (Outcome.ACCEPTED, *CORRECTED)

KINDS = ("zero-shot", "head", "finetuned", "other", "none")
"""What made a suggestion: text prompts, a head on the base encoder, a finetuned encoder, another tool, or nothing."""


@dataclass(frozen=True)
class Fate:
    """The outcomes of a group of suggestions. `acceptance` is in [0, 1]; None if no suggestion was judged."""

    accepted: int
    relabelled: int
    moved: int
    deleted: int
    added: int
    skipped: int
    bulk: int
    acceptance: float | None

    @property
    def corrected(self) -> int:
        """How many suggestions were changed."""
        return self.relabelled + self.moved + self.deleted


@dataclass(frozen=True)
class ClassFate:
    """How often a label was suggested and judged, how often it was kept, and how often annotators added it."""

    control: str
    label: str
    suggested: int
    accepted: int
    added: int
    acceptance: float | None


@dataclass(frozen=True)
class RegionFate:
    """What became of a label's suggested regions, and how many were added.

    The shifts are medians over the regions that kept their label, accepted ones included: of the start and of the end,
    in seconds, by how far annotators moved them; None if there are no such regions.
    """

    control: str
    label: str
    suggested: int
    accepted: int
    moved: int
    relabelled: int
    deleted: int
    added: int
    acceptance: float | None
    start_shift_s: float | None
    end_shift_s: float | None
    iou: float | None  # the median


@dataclass(frozen=True)
class LeadTime:
    """The median time per annotation in seconds, without bulk accepts and skips; None without annotations."""

    num_annotations: int
    median_s: float | None


@dataclass(frozen=True)
class Acceptance:
    """The counts of a project's standing annotations. The version `""` stands for no suggestion in view."""

    num_annotations: int
    overall: Fate
    by_class: list[ClassFate]
    by_region_label: list[RegionFate]
    by_kind: dict[str, Fate]  # those of `KINDS` that occur
    by_day: dict[str, Fate]  # UTC day of the annotations' last change, such as 2026-11-30
    by_version: dict[str, Fate]  # in the order in which annotators first saw them
    by_annotator: dict[int, Fate]
    accepted_lead_time: LeadTime  # annotations that kept all suggestions
    corrected_lead_time: LeadTime  # annotations that changed at least one
    unaided_lead_time: LeadTime  # annotations without a suggestion to keep or change


def acceptance(standing: Iterable[Entry]) -> Acceptance:
    """Count the entries of a project's standing annotations, read one after the other."""
    overall: Counter[Outcome] = Counter()
    by_kind, by_day, by_version, by_annotator = _groups(), _groups(), _groups(), _groups()
    first_seen: dict[str, float] = {}
    classes = _Classes()
    regions: list[Entry] = []
    annotations: dict[int, tuple[float | None, frozenset[Outcome]]] = {}
    for entry in standing:
        version = entry.model_version
        first_seen[version] = min(first_seen.get(version, entry.revision), entry.revision)
        groups = (by_kind[kind_of(version)], by_day[_day(entry.revision)], by_version[version])
        for group in (overall, *groups, by_annotator[entry.annotator]):
            # An annotation without labels is an ADDED entry without a control; it added nothing.
            group[entry.outcome] += int(bool(entry.control) or entry.outcome != Outcome.ADDED)
        classes.count(entry)
        if entry.region:
            regions.append(entry)
        lead_time_s, outcomes = annotations.get(entry.annotation, (entry.lead_time_s, frozenset()))
        annotations[entry.annotation] = (lead_time_s, outcomes | {entry.outcome})
    times = _lead_times(annotations.values())
    return Acceptance(
        num_annotations=len(annotations),
        overall=_fate(overall),
        by_class=classes.fates(),
        by_region_label=_by_region_label(regions),
        by_kind={kind: _fate(by_kind[kind]) for kind in KINDS if kind in by_kind},
        by_day={day: _fate(by_day[day]) for day in sorted(by_day)},
        by_version={version: _fate(by_version[version]) for version in sorted(by_version, key=first_seen.__getitem__)},
        by_annotator={annotator: _fate(group) for annotator, group in sorted(by_annotator.items())},
        accepted_lead_time=_lead_time(times["accepted"]),
        corrected_lead_time=_lead_time(times["corrected"]),
        unaided_lead_time=_lead_time(times["unaided"]),
    )


def _groups() -> dict[Any, Counter[Outcome]]:
    return defaultdict(Counter)


@functools.lru_cache(maxsize=1_000)
def kind_of(model_version: str) -> str:
    """Which of `KINDS` a model version is, judging by its name."""
    if not model_version:
        return "none"
    encoder, _, rest = model_version.rpartition(".")[0].rpartition(".")
    if re.search(r"-tuned-\d+-[^-]+$", encoder) or rest.startswith("head-canary-"):
        return "finetuned"
    return "zero-shot" if rest == ZERO_SHOT else "head" if rest.startswith("head-") else "other"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _fate(counts: Counter[Outcome]) -> Fate:
    accepted, judged = counts[Outcome.ACCEPTED], sum(counts[outcome] for outcome in JUDGED)
    return Fate(
        accepted=accepted,
        relabelled=counts[Outcome.RELABELLED],
        moved=counts[Outcome.MOVED],
        deleted=counts[Outcome.DELETED],
        added=counts[Outcome.ADDED],
        skipped=counts[Outcome.SKIPPED],
        bulk=counts[Outcome.BULK],
        acceptance=_share(accepted, judged),
    )


class _Classes:
    """How each label fared."""

    def __init__(self) -> None:
        self._suggested: Counter[tuple[str, str]] = Counter()
        self._accepted: Counter[tuple[str, str]] = Counter()
        self._added: Counter[tuple[str, str]] = Counter()

    def count(self, entry: Entry) -> None:
        if entry.outcome not in (*JUDGED, Outcome.ADDED):
            return
        labels = {(entry.control, label) for label in entry.labels}
        suggested = {(entry.control, label) for label in entry.suggested}
        self._suggested.update(suggested)
        self._accepted.update(suggested & labels if entry.outcome != Outcome.MOVED else ())
        self._added.update(labels - suggested)

    def fates(self) -> list[ClassFate]:
        suggested, accepted, added = self._suggested, self._accepted, self._added
        return [
            ClassFate(*name, suggested[name], accepted[name], added[name], _share(accepted[name], suggested[name]))
            for name in sorted(suggested | added)
        ]


def _by_region_label(entries: Sequence[Entry]) -> list[RegionFate]:
    """What became of regions, by label: those of Labels, and what perRegion controls say about them."""
    outcomes: dict[tuple[str, str], Counter[Outcome]] = defaultdict(Counter)
    kept: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if not entry.region or entry.outcome not in (*JUDGED, Outcome.ADDED):
            continue
        for label in set(entry.suggested) | (set(entry.labels) - set(entry.suggested)):
            is_new = label not in entry.suggested
            outcomes[entry.control, label][Outcome.ADDED if is_new else entry.outcome] += 1
            if not is_new and label in entry.labels and entry.iou is not None:
                kept[entry.control, label].append(entry)
    return [_region_fate(*name, counts, kept[name]) for name, counts in sorted(outcomes.items())]


def _region_fate(control: str, label: str, counts: Counter[Outcome], kept: Sequence[Entry]) -> RegionFate:
    suggested = sum(counts[outcome] for outcome in JUDGED)
    return RegionFate(
        control,
        label,
        suggested,
        counts[Outcome.ACCEPTED],
        counts[Outcome.MOVED],
        counts[Outcome.RELABELLED],
        counts[Outcome.DELETED],
        counts[Outcome.ADDED],
        _share(counts[Outcome.ACCEPTED], suggested),
        _median(_shift(entry.start_s, entry.suggested_start_s) for entry in kept),
        _median(_shift(entry.end_s, entry.suggested_end_s) for entry in kept),
        _median(entry.iou for entry in kept),
    )


def _shift(given_s: float | None, suggested_s: float | None) -> float | None:
    return None if given_s is None or suggested_s is None else abs(given_s - suggested_s)


def _median(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return median(numbers) if numbers else None


def _lead_times(annotations: Iterable[tuple[float | None, frozenset[Outcome]]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    for lead_time_s, outcomes in annotations:
        if lead_time_s is None or outcomes & {Outcome.BULK, Outcome.SKIPPED}:
            continue
        corrected = outcomes & set(CORRECTED)
        kind = "corrected" if corrected else "accepted" if Outcome.ACCEPTED in outcomes else "unaided"
        times[kind].append(lead_time_s)
    return times


def _lead_time(times: Sequence[float]) -> LeadTime:
    return LeadTime(len(times), median(times) if times else None)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
