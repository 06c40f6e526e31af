"""What a project's annotators agree on, under the labels' current names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from clapboard.errors import LabelConfigError, NotFoundError
from clapboard.feedback.consensus import Consensus
from clapboard.feedback.entries import Entry
from clapboard.feedback.left_out import LeftOut
from clapboard.feedback.task_labels import Count, LabelRules, by_task
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.store import Store


def label_rules(store: Store, project: int, label_space: LabelSpace) -> LabelRules:
    """What turns the project's annotations into labels."""
    return LabelRules(label_space, store.renames.of_project(project))


def refresh_labels(store: Store, project: int, label_space: LabelSpace) -> None:
    """Bring the labels in the store up to date with the ledger, the label config and the renamed labels."""
    store.labels.refresh(project, label_rules(store, project, label_space))


def agreement(store: Store, project: int, label_space: LabelSpace) -> Consensus:
    """What the project's annotators agree on, and what is left out: of all tasks."""
    refresh_labels(store, project, label_space)
    return store.labels.consensus(project)


def left_out(store: Store, project: int, label_space: LabelSpace) -> LeftOut:
    """What isn't learnt from, and why."""
    refresh_labels(store, project, label_space)
    return store.labels.left_out(project)


@dataclass(frozen=True)
class Rebuilt:
    """A project of which something derived differed from the ledger, and was derived anew."""

    project: int
    tasks: list[int]  # that differed
    num_counts: int  # of labels that differed


def verify_derived(store: Store) -> list[Rebuilt]:
    """Compare what is derived from the ledger with a computation from all of it; what differs is derived anew."""
    return [rebuilt for project in store.annotations.projects() if (rebuilt := _verify_project(store, project))]


def _verify_project(store: Store, project: int) -> Rebuilt | None:
    expected = store.annotations.recomputed(project)
    tasks = {entry.task for entry in _difference(store.annotations.standing(project), expected)}
    counts: set[Count] = set()
    if label_space := known_label_space(store, project):
        rules = label_rules(store, project, label_space)
        store.labels.refresh(project, rules)
        differing_tasks, counts = store.labels.differences(project, by_task(rules.consensus(expected)))
        tasks |= differing_tasks
    if not tasks and not counts:
        return None
    store.annotations.rebuild(project)
    return Rebuilt(project, sorted(tasks), len(counts))


def _difference(entries: Sequence[Entry], others: Sequence[Entry]) -> list[Entry]:
    """The entries that one of the lists lacks; their labels are lists, so they can't be in a set."""
    these, those = Counter(map(repr, entries)), Counter(map(repr, others))
    return [entry for entry in (*entries, *others) if these[repr(entry)] != those[repr(entry)]]


def known_label_space(store: Store, project: int) -> LabelSpace | None:
    """The project's label space; None if the project never introduced itself or its label config can't be parsed."""
    try:
        return parse_label_config(store.catalog.project(project).label_config)
    except (LabelConfigError, NotFoundError):
        return None
