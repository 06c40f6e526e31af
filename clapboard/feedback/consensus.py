"""Consensus: from the standing annotations in the ledger to the labels that each task's annotators agree on. Pure.

Whole-clip Choices and Labels that get suggestions have labels here; of Labels, the regions are matched. If a task has
ground truths, only these count; else the annotations of people who listened; else bulk-accepted ones. Of each
annotator, the latest annotation counts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from clapboard.feedback.agreed_regions import AgreedRegion, MarkedRegion, Marking, agree
from clapboard.feedback.entries import Entry, Outcome
from clapboard.feedback.left_out import LeftOut, LeftOutCollector
from clapboard.labels.label_space import Control, LabelSpace

BULK_WEIGHT = 0.3
"""The training weight of labels that were accepted in bulk; that of others is 1."""


@dataclass(frozen=True)
class Agreed:
    """The labels of one control for one task, in the label config's order.

    They are empty only in a multi-label control and in Labels, where that means that no label applies.
    """

    labels: tuple[str, ...]
    weight: float
    bulk: bool  # accepted in bulk: nobody listened
    suggestion_biased: bool  # at least one annotator had a suggestion in view
    # Of Labels, the regions that annotators agree on (`labels` are theirs), and those without a majority.
    regions: tuple[AgreedRegion, ...] = ()
    unsettled: tuple[AgreedRegion, ...] = ()
    recording_s: float | None = None  # the recording's length, as the annotators' pages measured it


TaskLabels = Mapping[str, Agreed]
"""By the control's name; controls without agreement are absent."""


@dataclass(frozen=True)
class Consensus:
    """The labels by task, and the annotations that were left out."""

    labels: dict[int, TaskLabels]
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True)
class _Vote:
    labels: frozenset[str]
    bulk: bool
    suggestion_biased: bool


def consensus(standing: Iterable[Entry], label_space: LabelSpace) -> Consensus:
    """The agreed labels of every task that has any, from the entries of a project's standing annotations."""
    tasks: dict[int, dict[int, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in standing:
        tasks[entry.task][entry.annotation].append(entry)
    labels: dict[int, TaskLabels] = {}
    left_out = LeftOutCollector()
    for task, by_annotation in sorted(tasks.items()):
        annotations = counted_annotations(list(by_annotation.values()))
        hidden = [_hidden(annotation, label_space) for annotation in annotations]
        if not annotations:
            left_out.skipped(task)
        for annotation in annotations:
            _note_unknown_controls(annotation, label_space, left_out)
        agreed: dict[str, Agreed] = {}
        for control in label_space.predicted:
            answers = _answers(annotations, hidden, control)
            votes = _votes(control, answers, left_out)
            winner = _majority(control, votes)
            if winner is not None:
                agreed[control.name] = winner
            elif votes:
                left_out.tie(control.name, task)
        for control in label_space.marking:
            answers = _answers(annotations, hidden, control)
            if answers and (marked := _agreed_regions(control, answers, left_out)):
                agreed[control.name] = marked
        if agreed:
            labels[task] = agreed
    return Consensus(labels, left_out.result())


def counted_annotations(annotations: Sequence[list[Entry]]) -> list[list[Entry]]:
    """The annotations of a task that count, one per annotator; none if the task was skipped."""
    answered = [annotation for annotation in annotations if not _is_skip(annotation)]
    if gold := [annotation for annotation in answered if annotation[0].ground_truth]:
        annotations = gold
    elif any(not _is_bulk(annotation) for annotation in answered):
        annotations = [annotation for annotation in annotations if not _is_bulk(annotation)]
    latest: dict[int, list[Entry]] = {}
    for annotation in sorted(annotations, key=lambda entries: (entries[0].revision, entries[0].annotation)):
        # Annotations of unknown annotators count as those of different ones.
        latest[annotation[0].annotator or -annotation[0].annotation] = annotation
    return [annotation for annotation in latest.values() if not _is_skip(annotation)]


def _is_skip(annotation: Sequence[Entry]) -> bool:
    return annotation[0].outcome == Outcome.SKIPPED


def _is_bulk(annotation: Sequence[Entry]) -> bool:
    return annotation[0].outcome == Outcome.BULK


def _answers(annotations: Sequence[list[Entry]], hidden: Sequence[set[str]], control: Control) -> list[Sequence[Entry]]:
    """The annotations whose annotator could see the control."""
    return [
        annotation
        for annotation, hidden_controls in zip(annotations, hidden, strict=True)
        if control.name not in hidden_controls
    ]


def _agreed_regions(
    control: Control, annotations: Sequence[Sequence[Entry]], left_out: LeftOutCollector
) -> Agreed | None:
    """What the annotators of a task agree on; None if there is too much of it."""
    markings = [_marking(control, annotation, left_out) for annotation in annotations]
    events = agree(markings)
    if events is None:
        left_out.tie(control.name, annotations[0][0].task)
        return None
    regions, unsettled = events
    if unsettled:
        left_out.tie(control.name, annotations[0][0].task)
    names = {region.label for region in regions}
    bulk = all(_is_bulk(annotation) for annotation in annotations)
    lengths = [entry.recording_s for annotation in annotations for entry in annotation if entry.recording_s]
    return Agreed(
        tuple(label.value for label in control.labels if label.value in names),
        BULK_WEIGHT if bulk else 1.0,
        bulk,
        any(annotation[0].model_version for annotation in annotations),
        regions,
        unsettled,
        median(lengths) if lengths else None,
    )


def _marking(control: Control, annotation: Sequence[Entry], left_out: LeftOutCollector) -> Marking:
    """The annotation's regions, without labels that the control doesn't have and without impossible extents."""
    known = {label.value for label in control.labels}
    regions: list[MarkedRegion] = []
    for entry in annotation:
        if entry.control != control.name or not entry.region or not entry.labels:
            continue
        left_out.unknown(control.name, [label for label in entry.labels if label not in known], entry.task)
        extent = _extent(entry)
        if extent is None:
            left_out.extent(control.name, entry.task)
            continue
        regions += [MarkedRegion(name, *extent, entry.channel or 0) for name in entry.labels if name in known]
    first = annotation[0]
    return Marking(first.annotator or -first.annotation, first.model_version, tuple(regions))


def _extent(entry: Entry) -> tuple[float, float] | None:
    """The region's start and end within the recording, in seconds; None if nothing of it lies there."""
    if entry.span_s is None:
        return None
    start_s, end_s = max(0.0, entry.span_s[0]), min(entry.span_s[1], entry.recording_s or math.inf)
    return (start_s, end_s) if end_s - start_s > 0.0 and math.isfinite(end_s) else None


def _hidden(annotation: Sequence[Entry], label_space: LabelSpace) -> set[str]:
    """The controls that were hidden when the annotation was submitted, so that their lack of labels means nothing."""
    chosen = {entry.control: entry.labels for entry in annotation if entry.control and not entry.region}
    return label_space.visibility.hidden(chosen, regions=True)


def _note_unknown_controls(annotation: Sequence[Entry], label_space: LabelSpace, left_out: LeftOutCollector) -> None:
    known = {"", *(control.name for control in label_space.controls)}
    for entry in annotation:
        if entry.control not in known:
            left_out.unknown(entry.control, entry.labels, entry.task)


def _votes(control: Control, annotations: Sequence[Sequence[Entry]], left_out: LeftOutCollector) -> list[_Vote]:
    """Each annotation's vote on the control, without labels that the control doesn't have."""
    known = {label.value for label in control.labels}
    votes = []
    for annotation in annotations:
        entry = next((entry for entry in annotation if entry.control in (control.name, "") and not entry.region), None)
        if entry is None or not (entry.labels or control.multiple):
            continue
        labels = frozenset(entry.labels) & known
        left_out.unknown(control.name, [label for label in entry.labels if label not in known], entry.task)
        if not control.multiple and len(labels) > 1:
            left_out.several(control.name, entry.task)
            labels = frozenset()
        if labels or not entry.labels:
            votes.append(_Vote(labels, _is_bulk(annotation), bool(entry.model_version)))
    return votes


def _majority(control: Control, votes: Sequence[_Vote]) -> Agreed | None:
    """The majority's labels; in a multi-label control, label by label. None without votes or with a tie."""
    if not votes:
        return None
    counts = Counter(label for vote in votes for label in vote.labels)
    if control.multiple:
        if any(2 * count == len(votes) for count in counts.values()):
            return None
        chosen = {label for label, count in counts.items() if 2 * count > len(votes)}
        voters = list(votes)
    else:
        most = max(counts.values())
        chosen = {label for label, count in counts.items() if count == most}
        if len(chosen) > 1:
            return None
        voters = [vote for vote in votes if vote.labels == chosen]
    labels = tuple(label.value for label in control.labels if label.value in chosen)
    bulk = all(vote.bulk for vote in voters)
    return Agreed(labels, BULK_WEIGHT if bulk else 1.0, bulk, any(vote.suggestion_biased for vote in voters))
