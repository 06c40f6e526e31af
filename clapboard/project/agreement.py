"""A project's standing annotations under the labels' current names, and what its annotators agree on."""

from __future__ import annotations

from clapboard.errors import LabelConfigError, NotFoundError
from clapboard.feedback.consensus import Consensus, consensus
from clapboard.feedback.entries import Entry
from clapboard.feedback.renames import renamed
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.store import Store


def current_entries(store: Store, project: int, label_space: LabelSpace) -> list[Entry]:
    """The entries of the project's standing annotations, with renamed labels under their current names."""
    return renamed(store.ledger.standing(project), store.renames.of_project(project), label_space)


def agreement(store: Store, project: int, label_space: LabelSpace) -> Consensus:
    """What the project's annotators agree on, and what is left out."""
    return consensus(current_entries(store, project, label_space), label_space)


def known_label_space(store: Store, project: int) -> LabelSpace | None:
    """The project's label space; None if the project never introduced itself or its label config can't be parsed."""
    try:
        return parse_label_config(store.catalog.project(project).label_config)
    except (LabelConfigError, NotFoundError):
        return None
