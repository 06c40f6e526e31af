"""The standing annotations: which event of the ledger each annotation stands by, kept up to date with every entry.

Each annotation's latest revision stands; if one revision came in several events, the first one counts. A deleted
annotation stays deleted, unless reconciliation has seen it in Label Studio since. These are maxima over the entries, so
the order in which events are entered changes nothing. `recomputed` reads the same from all entries.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Select, Subquery, case, delete, func, select, update

from clapboard.feedback.entries import Entry, Outcome
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import (
    agreed_labels,
    annotation_states,
    inbox,
    label_counts,
    labelled_tasks,
    learning,
    ledger,
    ledger_events,
)

# On PostgreSQL, whoever enters events or derives labels from them holds this lock until the commit, so that nobody
# derives anything from half of what others are entering. SQLite has one writer at a time anyway.
_LEDGER_LOCK = 4302019

_EVENTS_AT_ONCE = 1_000

ENTRY_COLUMNS = tuple(ledger.c[field.name] for field in fields(Entry))


@dataclass(frozen=True)
class _State:
    """An annotation's row."""

    project: int
    annotation: int
    task: int = 0
    revision: float = 0.0
    inbox_id: int = 0
    model_version: str = ""
    withdrawn_by: int = 0
    seen_by: int = 0
    stands: bool = False

    def after(self, entry: Entry, inbox_id: int, *, reconciled: bool) -> _State:
        """The state once an event's entry about the annotation is entered."""
        state = self
        if entry.outcome is Outcome.WITHDRAWN:
            state = replace(state, withdrawn_by=max(state.withdrawn_by, inbox_id))
        else:
            if not state.inbox_id or (entry.revision, -inbox_id) > (state.revision, -state.inbox_id):
                state = replace(state, inbox_id=inbox_id, task=entry.task, revision=entry.revision)
                state = replace(state, model_version=entry.model_version)
            if reconciled:
                state = replace(state, seen_by=max(state.seen_by, inbox_id))
        return replace(state, stands=bool(state.inbox_id) and state.withdrawn_by <= state.seen_by)


_STATE_COLUMNS = tuple(field.name for field in fields(_State) if field.name not in ("project", "annotation"))


@dataclass(frozen=True)
class Entered:
    """An event with its entries. `reconciled`: it comes from reconciliation, not from a webhook."""

    inbox_id: int
    received_at: float
    reconciled: bool
    entries: Sequence[Entry]


class AnnotationStore:
    """The table of annotations' states, and which tasks' labels have to be derived anew because of it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def enter(self, connection: Connection, events: Sequence[Entered]) -> None:
        """Apply events, in the transaction that adds their entries to the ledger and holds its lock."""
        before = self._states(connection, {_key(entry) for event in events for entry in event.entries})
        after = dict(before)
        arrivals: dict[tuple[int, int], float] = {}
        for event in events:
            for entry in {_key(entry): entry for entry in event.entries}.values():
                state = after.get(_key(entry), _State(*_key(entry)))
                moved = after[_key(entry)] = state.after(entry, event.inbox_id, reconciled=event.reconciled)
                for task in {state.task, moved.task} - {0}:
                    arrivals.setdefault((entry.project, task), 0.0)
                if entry.outcome is not Outcome.WITHDRAWN:
                    key = (entry.project, entry.task)
                    arrivals[key] = max(arrivals.get(key, 0.0), event.received_at)
        self._put(connection, [after[key] for key in sorted(after) if after[key] != before.get(key)])
        self._touch(connection, arrivals)
        self._count_entries(connection, Counter(entry.project for event in events for entry in event.entries))

    def rebuild(self, project: int) -> None:
        """Derive everything about the project from the ledger anew. Its labels are due for a refresh then."""
        of_project = ledger.c.project == project
        rows = (
            select(*ENTRY_COLUMNS, ledger.c.inbox_id, ledger_events.c.reconciled, inbox.c.received_at)
            .join(ledger_events, ledger_events.c.inbox_id == ledger.c.inbox_id)
            .outerjoin(inbox, inbox.c.id == ledger.c.inbox_id)
            .order_by(ledger.c.inbox_id, ledger.c.position)
        )
        with self._db.write() as connection:
            lock_ledger(connection)
            for table in (annotation_states, labelled_tasks, agreed_labels, label_counts):
                connection.execute(delete(table).where(table.c.project == project))
            connection.execute(update(learning).where(learning.c.project == project).values(num_entries=0))
            entered = itertools.groupby(connection.execute(rows.where(of_project)), lambda row: row.inbox_id)
            events = (_entered(inbox_id, list(group)) for inbox_id, group in entered)
            for batch in in_chunks(events, _EVENTS_AT_ONCE):
                self.enter(connection, batch)

    def standing(self, project: int, tasks: Iterable[int] | None = None) -> list[Entry]:
        """The entries of the standing annotations, of the whole project or of some tasks, in their order."""
        with self._db.read() as connection:
            return self.standing_within(connection, project, tasks)

    def standing_pages(self, project: int, *, at_once: int = 2_000) -> Iterator[list[Entry]]:
        """The entries of all standing annotations, in pages of so many annotations: memory doesn't grow with them."""
        columns = annotation_states.c
        last = -1
        while True:
            page = select(columns.annotation).where(_stands(project), columns.annotation > last)
            with self._db.read() as connection:
                numbers = connection.scalars(page.order_by(columns.annotation).limit(at_once)).all()
                if not numbers:
                    return
                of_page = columns.annotation.between(numbers[0], numbers[-1])
                rows = connection.execute(_standing(project).where(of_page)).all()
            yield [entry_of(row) for row in rows]
            last = numbers[-1]

    def standing_within(self, connection: Connection, project: int, tasks: Iterable[int] | None) -> list[Entry]:
        """The same, in the caller's transaction."""
        query = _standing(project)
        if tasks is None:
            return [entry_of(row) for row in connection.execute(query)]
        query = query.where(self._db.among(annotation_states.c.task, "tasks"))
        entries: list[Entry] = []
        for chunk in in_chunks(sorted(tasks)):
            entries += [entry_of(row) for row in connection.execute(query, {"tasks": chunk})]
        return sorted(entries, key=lambda entry: entry.annotation)  # stable: positions stay

    def revisions(self, project: int) -> dict[int, float]:
        """By standing annotation, its latest revision, even if it has no labels."""
        query = select(annotation_states.c.annotation, annotation_states.c.revision).order_by(
            annotation_states.c.annotation
        )
        with self._db.read() as connection:
            return {row.annotation: row.revision for row in connection.execute(query.where(_stands(project)))}

    def count(self, project: int) -> int:
        """How many annotations stand."""
        with self._db.read() as connection:
            query = select(func.count()).select_from(annotation_states).where(_stands(project))
            return int(connection.scalar(query) or 0)

    def num_by_task(self, project: int, tasks: Iterable[int] | None = None) -> dict[int, int]:
        """By task, how many annotations it has, of all tasks or of some; those without any are absent."""
        query = (
            select(annotation_states.c.task, func.count()).where(_stands(project)).group_by(annotation_states.c.task)
        )
        with self._db.read() as connection:
            if tasks is None:
                return {row.task: row[1] for row in connection.execute(query)}
            query = query.where(self._db.among(annotation_states.c.task, "tasks"))
            chunks = in_chunks(sorted(tasks))
            return {task: number for chunk in chunks for task, number in connection.execute(query, {"tasks": chunk})}

    def answered(self, project: int) -> dict[str, set[int]]:
        """By model version, the tasks that were annotated with its suggestion in view."""
        query = select(annotation_states.c.model_version, annotation_states.c.task).distinct()
        task_ids: dict[str, set[int]] = defaultdict(set)
        with self._db.read() as connection:
            for row in connection.execute(query.where(_stands(project), annotation_states.c.model_version != "")):
                task_ids[row.model_version].add(row.task)
        return dict(task_ids)

    def num_entries(self, project: int) -> int:
        """How many entries the ledger has of the project."""
        query = select(learning.c.num_entries).where(learning.c.project == project)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)

    def projects(self) -> list[int]:
        """The projects that have entries in the ledger."""
        with self._db.read() as connection:
            return list(connection.scalars(select(ledger.c.project).distinct().order_by(ledger.c.project)))

    def recomputed(self, project: int) -> list[Entry]:
        """What `standing` has to agree with: the same, read from all entries of the ledger."""
        latest = _latest(project)
        columns = [latest.c[column.name] for column in ENTRY_COLUMNS]
        query = select(*columns).where(latest.c.place == 1).order_by(latest.c.annotation, latest.c.position)
        with self._db.read() as connection:
            return [entry_of(row) for row in connection.execute(query)]

    def _states(self, connection: Connection, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], _State]:
        by_project: dict[int, list[int]] = defaultdict(list)
        for project, annotation in keys:
            by_project[project].append(annotation)
        states = {}
        for project, numbers in by_project.items():
            query = select(annotation_states).where(
                annotation_states.c.project == project, self._db.among(annotation_states.c.annotation, "numbers")
            )
            for row in connection.execute(query, {"numbers": numbers}):
                states[project, row.annotation] = _State(**row._mapping)
        return states

    def _put(self, connection: Connection, states: Sequence[_State]) -> None:
        statement = self._db.insert(annotation_states)
        fresh = {name: statement.excluded[name] for name in _STATE_COLUMNS}
        key = [annotation_states.c.project, annotation_states.c.annotation]
        if states:
            connection.execute(
                statement.on_conflict_do_update(index_elements=key, set_=fresh), [asdict(state) for state in states]
            )

    def _touch(self, connection: Connection, arrivals: Mapping[tuple[int, int], float]) -> None:
        """Have the tasks' labels derived anew, because of events that arrived at these times; 0: about others."""
        statement = self._db.insert(labelled_tasks)
        is_later = statement.excluded.received_at > labelled_tasks.c.received_at
        newest = case((is_later, statement.excluded.received_at), else_=labelled_tasks.c.received_at)
        key = [labelled_tasks.c.project, labelled_tasks.c.task]
        new = {"generation": 0, "labels": {}, "left_out": []}
        rows = [
            new | {"project": project, "task": task, "received_at": received_at}
            for (project, task), received_at in sorted(arrivals.items())
        ]
        if rows:
            stale = {"generation": 0, "received_at": newest}
            connection.execute(statement.on_conflict_do_update(index_elements=key, set_=stale), rows)

    def _count_entries(self, connection: Connection, num_entries: Mapping[int, int]) -> None:
        statement = self._db.insert(learning)
        more = {"num_entries": learning.c.num_entries + statement.excluded.num_entries}
        new = {"rules": "", "generation": 0}
        if rows := [new | {"project": project, "num_entries": number} for project, number in num_entries.items()]:
            connection.execute(statement.on_conflict_do_update(index_elements=["project"], set_=more), rows)


def lock_ledger(connection: Connection) -> None:
    """Wait until nobody else enters events or derives labels, and keep others waiting until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LEDGER_LOCK})")


def entry_of(row: Iterable[Any]) -> Entry:
    """A row of `ENTRY_COLUMNS` as an entry."""
    project, task, annotation, revision, annotator, outcome, *others = row
    return Entry(project, task, annotation, revision, annotator, Outcome(outcome), *others)


def _key(entry: Entry) -> tuple[int, int]:
    return entry.project, entry.annotation


def _entered(inbox_id: int, rows: Sequence[Any]) -> Entered:
    """The event of these rows of the ledger. If it has left the inbox, it arrived long ago."""
    entries = [entry_of(row[: len(ENTRY_COLUMNS)]) for row in rows]
    return Entered(inbox_id, rows[0].received_at or 0.0, bool(rows[0].reconciled), entries)


def _stands(project: int) -> Any:
    return (annotation_states.c.project == project) & annotation_states.c.stands.is_(True)


def _standing(project: int) -> Select[Any]:
    """The entries of the project's standing annotations, in their order."""
    stands_by = (
        (ledger.c.project == annotation_states.c.project)
        & (ledger.c.annotation == annotation_states.c.annotation)
        & (ledger.c.revision == annotation_states.c.revision)
        & (ledger.c.inbox_id == annotation_states.c.inbox_id)
    )
    return (
        select(*ENTRY_COLUMNS)
        .select_from(annotation_states.join(ledger, stands_by))
        .where(_stands(project))
        .order_by(annotation_states.c.annotation, ledger.c.position)
    )


def _latest(project: int) -> Subquery:
    """The project's entries, ranked: those of an annotation's latest revision have place 1.

    If one revision came in several events, the first one counts. Deleted annotations are left out.
    """
    place = func.dense_rank().over(
        partition_by=ledger.c.annotation, order_by=[ledger.c.revision.desc(), ledger.c.inbox_id]
    )
    return (
        select(*ledger.c, place.label("place"))
        .where(ledger.c.project == project, ledger.c.outcome != Outcome.WITHDRAWN)
        .where(ledger.c.annotation.not_in(_deleted(project)))
        .subquery()
    )


def _deleted(project: int) -> Select[tuple[int]]:
    """The annotations that were deleted, and that reconciliation hasn't seen since."""
    withdrawn = ledger.c.outcome == Outcome.WITHDRAWN
    seen = ledger_events.c.reconciled & ~withdrawn
    last_withdrawn = func.max(case((withdrawn, ledger.c.inbox_id), else_=0))
    last_seen = func.max(case((seen, ledger.c.inbox_id), else_=0))
    return (
        select(ledger.c.annotation)
        .join(ledger_events, ledger_events.c.inbox_id == ledger.c.inbox_id)
        .where(ledger.c.project == project)
        .group_by(ledger.c.annotation)
        .having(last_withdrawn > last_seen)
    )
