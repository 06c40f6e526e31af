"""What a project's people agree on: from what stands in the ledger to the labels of each task. Pure.

Only whole-clip Choices that are predicted have labels here. Within a task, gold annotations alone count where there are
any; else those of people who listened, and bulk-accepted ones only where there are no others. Of each annotator the
latest counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clapboard.feedback.entries import Entry, Outcome
from clapboard.labels import Control, LabelSpace

BULK_WEIGHT = 0.3
"""What labels that nobody listened for are worth, against 1 for the others."""


@dataclass(frozen=True)
class Agreed:
    """The labels of one control for one task, in the label config's order.

    They are empty only where several may be chosen, and mean that none of them applies.
    """

    labels: tuple[str, ...]
    weight: float
    bulk: bool  # nobody listened
    suggestion_biased: bool  # somebody said so with a suggestion in sight


TaskLabels = Mapping[str, Agreed]
"""By the control's name; controls without agreement are absent."""


@dataclass(frozen=True)
class Consensus:
    """The labels by task, and what was left out."""

    labels: dict[int, TaskLabels]
    num_ties: int  # controls of tasks on which as many say one thing as another
    num_skipped: int  # tasks that everybody skipped
    num_unknown: int  # labels said by people that the label config doesn't have, or not in that number


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
    num_ties = num_skipped = num_unknown = 0
    for task, of_task in sorted(tasks.items()):
        counted = counting(list(of_task.values()))
        num_skipped += not counted
        num_unknown += sum(_num_of_gone_controls(annotation, label_space) for annotation in counted)
        agreed: dict[str, Agreed] = {}
        for control in label_space.predicted:
            votes, num_left_out = _votes(control, counted)
            num_unknown += num_left_out
            winner = _majority(control, votes)
            num_ties += bool(votes) and winner is None
            if winner is not None:
                agreed[control.name] = winner
        if agreed:
            labels[task] = agreed
    return Consensus(labels, num_ties, num_skipped, num_unknown)


def counting(annotations: Sequence[list[Entry]]) -> list[list[Entry]]:
    """The annotations of a task that count, one an annotator; none if the task was skipped."""
    said = [annotation for annotation in annotations if not _is_skip(annotation)]
    if gold := [annotation for annotation in said if annotation[0].ground_truth]:
        annotations = gold
    elif any(not _is_bulk(annotation) for annotation in said):
        annotations = [annotation for annotation in annotations if not _is_bulk(annotation)]
    latest: dict[int, list[Entry]] = {}
    for annotation in sorted(annotations, key=lambda entries: (entries[0].revision, entries[0].annotation)):
        # Where Label Studio no longer knows who it was, each annotation is somebody's.
        latest[annotation[0].annotator or -annotation[0].annotation] = annotation
    return [annotation for annotation in latest.values() if not _is_skip(annotation)]


def _is_skip(annotation: Sequence[Entry]) -> bool:
    return annotation[0].outcome == Outcome.SKIPPED


def _is_bulk(annotation: Sequence[Entry]) -> bool:
    return annotation[0].outcome == Outcome.BULK


def _num_of_gone_controls(annotation: Sequence[Entry], label_space: LabelSpace) -> int:
    known = {"", *(control.name for control in label_space.controls)}
    return sum(len(entry.labels) for entry in annotation if entry.control not in known)


def _votes(control: Control, annotations: Sequence[Sequence[Entry]]) -> tuple[list[_Vote], int]:
    """What each annotation says about the control, and how many labels had to be left out."""
    known = {label.value for label in control.labels}
    votes = []
    num_left_out = 0
    for annotation in annotations:
        entry = next((one for one in annotation if one.control in (control.name, "") and not one.region), None)
        if entry is None or not (entry.labels or control.multiple):
            continue
        labels = frozenset(entry.labels) & known
        if not control.multiple and len(labels) > 1:
            labels = frozenset()
        num_left_out += len(entry.labels) - len(labels)
        if labels or not entry.labels:
            votes.append(_Vote(labels, _is_bulk(annotation), bool(entry.model_version)))
    return votes, num_left_out


def _majority(control: Control, votes: Sequence[_Vote]) -> Agreed | None:
    """What most say, for each label by itself where several may be chosen; None without votes or with a tie."""
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
