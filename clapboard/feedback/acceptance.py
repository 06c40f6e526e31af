"""How suggestions fare with people: acceptance per class, model version and annotator, and the time they take. Pure.

A suggestion is one control's labels for a clip, or one region. Acceptance is accepted over the sum of accepted,
relabelled, moved and deleted. What people added has no suggestion to accept; what was skipped or accepted in bulk tells
nothing. All three are counted beside it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from clapboard.feedback.entries import Entry, Outcome

CORRECTED = (Outcome.RELABELLED, Outcome.MOVED, Outcome.DELETED)
JUDGED = (Outcome.ACCEPTED, *CORRECTED)


@dataclass(frozen=True)
class Fate:
    """What became of a group's suggestions. `acceptance` is in [0, 1]; None where nothing was judged."""

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
        """How many were judged and did not stay as they were."""
        return self.relabelled + self.moved + self.deleted


@dataclass(frozen=True)
class ClassFate:
    """How often a label was suggested to somebody who judged it, how often it stayed, and how often people added it."""

    control: str
    label: str
    suggested: int
    accepted: int
    added: int
    acceptance: float | None


@dataclass(frozen=True)
class LeadTime:
    """Median seconds that people spent on an annotation; None without any. Bulk and skips are left out."""

    num_annotations: int
    median_s: float | None


@dataclass(frozen=True)
class Acceptance:
    """What stands in a project's ledger, counted. `""` is the version of what had no suggestion in sight."""

    num_annotations: int
    overall: Fate
    by_class: list[ClassFate]
    by_version: dict[str, Fate]
    by_annotator: dict[int, Fate]
    accepted_lead_time: LeadTime  # all suggestions of the annotation as they were
    corrected_lead_time: LeadTime  # one of them at least relabelled, moved or deleted
    unaided_lead_time: LeadTime  # nothing suggested that could be either


def acceptance(standing: Iterable[Entry]) -> Acceptance:
    """How suggestions fared, from the entries of a project's standing annotations."""
    held = list(standing)
    by_version: dict[str, list[Entry]] = defaultdict(list)
    by_annotator: dict[int, list[Entry]] = defaultdict(list)
    annotations: dict[int, list[Entry]] = defaultdict(list)
    for entry in held:
        by_version[entry.model_version].append(entry)
        by_annotator[entry.annotator].append(entry)
        annotations[entry.annotation].append(entry)
    times = _lead_times(annotations.values())
    return Acceptance(
        num_annotations=len(annotations),
        overall=_fate(held),
        by_class=_by_class(held),
        by_version={version: _fate(some) for version, some in sorted(by_version.items())},
        by_annotator={annotator: _fate(some) for annotator, some in sorted(by_annotator.items())},
        accepted_lead_time=_lead_time(times["accepted"]),
        corrected_lead_time=_lead_time(times["corrected"]),
        unaided_lead_time=_lead_time(times["unaided"]),
    )


def _fate(entries: Sequence[Entry]) -> Fate:
    # An annotation that says nothing is an entry without a control: nothing was added there.
    counts = Counter(entry.outcome for entry in entries if entry.control or entry.outcome != Outcome.ADDED)
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


def _by_class(entries: Sequence[Entry]) -> list[ClassFate]:
    suggested: Counter[tuple[str, str]] = Counter()
    accepted: Counter[tuple[str, str]] = Counter()
    added: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if entry.outcome not in (*JUDGED, Outcome.ADDED):
            continue
        labels, before = ({(entry.control, label) for label in some} for some in (entry.labels, entry.suggested))
        suggested.update(before)
        accepted.update(before & labels if entry.outcome != Outcome.MOVED else ())
        added.update(labels - before)
    return [
        ClassFate(*name, suggested[name], accepted[name], added[name], _share(accepted[name], suggested[name]))
        for name in sorted(suggested | added)
    ]


def _lead_times(annotations: Iterable[Sequence[Entry]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    for entries in annotations:
        outcomes = {entry.outcome for entry in entries}
        lead_time_s = entries[0].lead_time_s
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
