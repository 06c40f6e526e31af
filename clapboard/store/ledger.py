"""The ledger: the meaning of every event of the inbox, entered once. Append-only; it can be rebuilt from the inbox.

Events may arrive late, twice and in any order, and several processes may enter them at once. The transaction that
enters an event also keeps what is derived from the entries up to date, see `annotations`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, exists, func, select

from clapboard.feedback.entries import Entry, entries
from clapboard.feedback.people import names_in
from clapboard.store.annotations import ENTRY_COLUMNS, AnnotationStore, Entered, entry_of, lock_ledger
from clapboard.store.database import Database
from clapboard.store.departures import WHOLE_PROJECT, forgotten_tasks, without_tasks
from clapboard.store.inbox import Event, Inbox
from clapboard.store.schema import annotators, ledger, ledger_events
from clapboard.store.schema import inbox as inbox_table

_EVENTS_AT_ONCE = 200
_LATE_EVENTS = 10_000
"""How many later events may be visible before an event is, because ids are assigned before the commit."""


@dataclass(frozen=True)
class Replay:
    """The result of reading the whole inbox again; `differing` are the events that the ledger has other entries of."""

    num_events: int
    num_entries: int
    num_unread: int  # events that have not been entered yet
    differing: list[int]

    @property
    def agrees(self) -> bool:
        """Whether the ledger agrees with the inbox."""
        return not self.differing


class LedgerStore:
    """The ledger table."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._annotations = AnnotationStore(database)

    def catch_up(self) -> int:
        """Enter all events of the inbox that haven't been yet. Returns how many entries this call added.

        Any process may call it at any time.
        """
        num_entered = 0
        while events := self.unread():
            with self._db.write() as connection:
                lock_ledger(connection)
                read = [(event, entries(event)) for event in events]
                entered = [(event, new) for event, new in read if self._append(connection, event, new)]
                self._derive(connection, entered)
            num_entered += sum(len(new) for _, new in entered)
        return num_entered

    def unread(self, limit: int = _EVENTS_AT_ONCE) -> list[Event]:
        """Up to `limit` events of the inbox that haven't been entered, oldest first."""
        last = select(func.coalesce(func.max(ledger_events.c.inbox_id), 0)).scalar_subquery()
        query = (
            select(inbox_table)
            .where(inbox_table.c.id > last - _LATE_EVENTS)
            .where(~exists().where(ledger_events.c.inbox_id == inbox_table.c.id))
            .order_by(inbox_table.c.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return [
            Event(row.id, row.received_at, row.action, row.project, row.body, row.suggestions or {}) for row in rows
        ]

    def append(self, event: Event, new: Sequence[Entry]) -> bool:
        """Enter the event's entries; False if the event had been entered already."""
        with self._db.write() as connection:
            lock_ledger(connection)
            is_new = self._append(connection, event, new)
            self._derive(connection, [(event, new)] if is_new else [])
        return is_new

    def enter_anew(self, connection: Connection, event: Event) -> None:
        """Enter an event that was changed, in the caller's transaction, which has deleted its entries.

        What is derived from the ledger has to be rebuilt afterwards.
        """
        self._append(connection, event, entries(event))

    def rebuild(self, project: int) -> None:
        """Derive everything about the project from the ledger anew."""
        self._annotations.rebuild(project)

    def num_entries(self, project: int) -> int:
        """How many entries the project has. The ledger is append-only, so an equal number means nothing has changed."""
        return self._annotations.num_entries(project)

    def standing(self, project: int, tasks: Iterable[int] | None = None) -> list[Entry]:
        """The entries of each annotation's latest revision, in the order of annotations; of all tasks, or of some."""
        return self._annotations.standing(project, tasks)

    def annotators(self) -> dict[int, str]:
        """The names of Label Studio's users, by id, as far as they are known."""
        with self._db.read() as connection:
            return {row.id: row.name for row in connection.execute(select(annotators))}

    def unnamed(self, project: int) -> set[int]:
        """The project's annotators whose names aren't known."""
        query = select(ledger.c.annotator).distinct().where(ledger.c.project == project, ledger.c.annotator > 0)
        with self._db.read() as connection:
            return set(connection.scalars(query.where(ledger.c.annotator.not_in(select(annotators.c.id)))))

    def name_annotators(self, names: Mapping[int, str]) -> None:
        """Store the users' names."""
        with self._db.write() as connection:
            self._name(connection, names)

    def revisions(self, project: int) -> dict[int, float]:
        """By annotation, its latest revision, even if it has no labels."""
        return self._annotations.revisions(project)

    def replay(self, inbox: Inbox) -> Replay:
        """Read the inbox from its beginning and compare its meaning with the ledger."""
        num_events = num_entries = num_unread = last = 0
        differing: list[int] = []
        while events := inbox.events(after_id=last, limit=_EVENTS_AT_ONCE):
            entered = self._entered(after_id=last, to_id=events[-1].id)
            for event in events:
                expected = entries(event)
                num_entries += len(expected)
                if event.id not in entered:
                    num_unread += 1
                elif entered.pop(event.id) != expected:
                    differing.append(event.id)
            differing += entered  # events that the inbox doesn't have
            num_events += len(events)
            last = events[-1].id
        return Replay(num_events, num_entries, num_unread, sorted(differing))

    def _append(self, connection: Connection, event: Event, new: Sequence[Entry]) -> bool:
        """Enter the event's entries; False if it isn't new, or if another process enters it at this moment."""
        if forgotten := forgotten_tasks(connection, event.project):
            body = without_tasks(event.body, forgotten)
            if WHOLE_PROJECT in forgotten or body != event.body:
                return False  # it was read before it was forgotten, and deleted or changed since
        marker = self._db.insert(ledger_events).values(inbox_id=event.id, reconciled=_is_reconciled(event))
        if connection.scalar(marker.on_conflict_do_nothing().returning(ledger_events.c.inbox_id)) is None:
            return False
        rows = [asdict(entry) | {"inbox_id": event.id, "position": position} for position, entry in enumerate(new)]
        if rows:
            connection.execute(ledger.insert(), rows)
        self._name(connection, names_in(event.body))
        return True

    def _derive(self, connection: Connection, entered: Sequence[tuple[Event, Sequence[Entry]]]) -> None:
        self._annotations.enter(
            connection, [Entered(event.id, event.received_at, _is_reconciled(event), new) for event, new in entered]
        )

    def _name(self, connection: Connection, names: Mapping[int, str]) -> None:
        statement = self._db.insert(annotators)
        name = statement.excluded.name
        changed = annotators.c.name != name
        if names:
            rows = [{"id": number, "name": names[number]} for number in sorted(names)]
            connection.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_={"name": name}, where=changed), rows
            )

    def _entered(self, *, after_id: int, to_id: int) -> dict[int, list[Entry]]:
        """By event in the range, its entries in the ledger; without the events that haven't been entered."""
        events = select(ledger_events.c.inbox_id).where(ledger_events.c.inbox_id.between(after_id + 1, to_id))
        rows = select(*ENTRY_COLUMNS, ledger.c.inbox_id).where(ledger.c.inbox_id.between(after_id + 1, to_id))
        with self._db.read() as connection:
            entered: dict[int, list[Entry]] = {number: [] for number in connection.scalars(events)}
            for *entry, inbox_id in connection.execute(rows.order_by(ledger.c.inbox_id, ledger.c.position)):
                entered.setdefault(inbox_id, []).append(entry_of(entry))
        return entered


def _is_reconciled(event: Event) -> bool:
    return event.body.get("source") == "sync"
