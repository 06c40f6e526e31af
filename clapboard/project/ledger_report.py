"""The report behind both `clapboard ledger` and `GET /ledger`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from clapboard.feedback.acceptance import Acceptance, acceptance
from clapboard.feedback.left_out import LeftOut
from clapboard.feedback.people import display_names
from clapboard.feedback.renames import Rename, renamed
from clapboard.project.agreement import agreement, known_label_space
from clapboard.store import Store


@dataclass(frozen=True)
class LedgerReport(Acceptance):
    """How suggestions fared, under the labels' current names, and which annotations aren't learnt from."""

    project: int
    annotators: dict[int, str]  # display names of the keys of `by_annotator`
    renames: list[Rename]
    left_out: LeftOut  # empty while the label config can't be parsed


def ledger_report(store: Store, project: int) -> LedgerReport:
    """The report, up to the last event in the inbox."""
    store.ledger.catch_up()
    standing, renames = store.ledger.standing(project), store.renames.of_project(project)
    left_out = LeftOut()
    if label_space := known_label_space(store, project):
        standing = renamed(standing, renames, label_space)
        left_out = agreement(store, project, label_space).left_out
    rates = acceptance(standing)
    figures = {field.name: getattr(rates, field.name) for field in fields(rates)}
    names = display_names(rates.by_annotator, store.ledger.annotators())
    return LedgerReport(**figures, project=project, annotators=names, renames=renames, left_out=left_out)
