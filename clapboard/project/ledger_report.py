"""The report behind both `clapboard ledger` and `GET /ledger`."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields

from clapboard.errors import NotFoundError
from clapboard.feedback.acceptance import Acceptance, acceptance
from clapboard.feedback.left_out import LeftOut
from clapboard.feedback.people import display_names
from clapboard.feedback.renames import Rename, renamed
from clapboard.memo import Memory
from clapboard.project.agreement import known_label_space, left_out
from clapboard.store import Store

_PROJECTS = 20


@dataclass(frozen=True)
class LedgerReport(Acceptance):
    """How suggestions fared, under the labels' current names, and which annotations aren't learnt from."""

    project: int
    annotators: dict[int, str]  # display names of the keys of `by_annotator`
    renames: list[Rename]
    left_out: LeftOut  # empty while the label config can't be parsed


class LedgerReports:
    """Reports of projects. A report is counted anew only once something was said or renamed since."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counted: Memory[Hashable, tuple[Acceptance, LeftOut]] = Memory(_PROJECTS)

    def report(self, project: int) -> LedgerReport:
        """The report, up to the last event in the inbox."""
        self._store.ledger.catch_up()
        renames = self._store.renames.of_project(project)
        num_entries, last_event = self._store.ledger.num_entries(project), self._store.inbox.last_id(project)
        key = (project, num_entries, last_event, self._label_config(project), *renames)
        rates, not_learnt = self._counted.get(key, lambda: self._count(project, renames))
        figures = {field.name: getattr(rates, field.name) for field in fields(rates)}
        names = display_names(rates.by_annotator, self._store.ledger.annotators())
        return LedgerReport(**figures, project=project, annotators=names, renames=renames, left_out=not_learnt)

    def _count(self, project: int, renames: list[Rename]) -> tuple[Acceptance, LeftOut]:
        pages = self._store.annotations.standing_pages(project)
        label_space = known_label_space(self._store, project)
        if label_space is None:
            return acceptance(entry for page in pages for entry in page), LeftOut()
        rates = acceptance(entry for page in pages for entry in renamed(page, renames, label_space))
        return rates, left_out(self._store, project, label_space)

    def _label_config(self, project: int) -> str:
        try:
            return self._store.catalog.project(project).label_config
        except NotFoundError:
            return ""


def ledger_report(store: Store, project: int) -> LedgerReport:
    """The project's report, up to the last event in the inbox."""
    return LedgerReports(store).report(project)
