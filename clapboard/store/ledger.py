"""The ledger: what every event of the inbox meant, entered once. Append-only; the inbox can always be read anew.

Events may come late, twice, in any order, and may be entered by several processes at once. What stands is each
annotation's latest revision; a deleted annotation stays gone, unless reconciliation has seen it in Label Studio since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, Row, Select, Subquery, case, exists, func, select

from clapboard.feedback.entries import Entry, Outcome, entries
from clapboard.store.database import Database
from clapboard.store.inbox import Event, Inbox
from clapboard.store.schema import inbox as inbox_table
from clapboard.store.schema import ledger, ledger_events

_EVENTS_AT_ONCE = 200
_LATE_EVENTS = 10_000
"""An event's number is given before it is committed: this many later ones may be there when it comes to light."""


@dataclass(frozen=True)
class Replay:
    """What reading the inbox anew gave. `differing` names events for which the ledger has other entries."""

    num_events: int
    num_entries: int
    num_unread: int  # events that have not been entered yet
    differing: list[int]

    @property
    def agrees(self) -> bool:
        """Whether the ledger holds exactly what the inbox says."""
        return not self.differing


class LedgerStore:
    """The ledger table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def catch_up(self) -> int:
        """Enter every event of the inbox that isn't yet; how many entries this call added. Anyone may, at any time."""
        num_entered = 0
        while events := self.unread():
            with self._db.write() as connection:
                for event in events:
                    found = entries(event)
                    num_entered += len(found) if self._append(connection, event, found) else 0
        return num_entered

    def unread(self, limit: int = _EVENTS_AT_ONCE) -> list[Event]:
        """The oldest events of the inbox that have not been entered."""
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

    def append(self, event: Event, found: Sequence[Entry]) -> bool:
        """Enter what the event means; False if it had been entered already."""
        with self._db.write() as connection:
            return self._append(connection, event, found)

    def num_entries(self, project: int) -> int:
        """How many entries the project has: as many as before means that nothing was said since."""
        with self._db.read() as connection:
            query = select(func.count()).select_from(ledger).where(ledger.c.project == project)
            return int(connection.scalar(query) or 0)

    def standing(self, project: int) -> list[Entry]:
        """What people say now: the entries of each annotation's latest revision, by annotation."""
        latest = _latest(project)
        query = select(latest).where(latest.c.place == 1).order_by(latest.c.annotation, latest.c.position)
        with self._db.read() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def revisions(self, project: int) -> dict[int, float]:
        """The latest revision of each standing annotation, whether it says anything or not."""
        latest = _latest(project)
        query = select(latest.c.annotation, latest.c.revision).where(latest.c.place == 1).distinct()
        with self._db.read() as connection:
            return {row.annotation: row.revision for row in connection.execute(query)}

    def replay(self, inbox: Inbox) -> Replay:
        """Read the inbox from its beginning and compare what it means with what was entered."""
        num_events = num_entries = num_unread = last = 0
        differing: list[int] = []
        while events := inbox.events(after_id=last, limit=_EVENTS_AT_ONCE):
            entered = self._entered(after_id=last, to_id=events[-1].id)
            for event in events:
                found = entries(event)
                num_entries += len(found)
                if event.id not in entered:
                    num_unread += 1
                elif entered.pop(event.id) != found:
                    differing.append(event.id)
            differing += entered  # entries of events that the inbox doesn't have
            num_events += len(events)
            last = events[-1].id
        return Replay(num_events, num_entries, num_unread, sorted(differing))

    def _append(self, connection: Connection, event: Event, found: Sequence[Entry]) -> bool:
        """Whether the event is new: it isn't if another process is entering it at this moment and succeeds."""
        marker = self._db.insert(ledger_events).values(inbox_id=event.id, reconciled=event.body.get("source") == "sync")
        if connection.scalar(marker.on_conflict_do_nothing().returning(ledger_events.c.inbox_id)) is None:
            return False
        rows = [asdict(entry) | {"inbox_id": event.id, "position": position} for position, entry in enumerate(found)]
        if rows:
            connection.execute(ledger.insert(), rows)
        return True

    def _entered(self, *, after_id: int, to_id: int) -> dict[int, list[Entry]]:
        """The entries of each event in the range that has been entered."""
        events = select(ledger_events.c.inbox_id).where(ledger_events.c.inbox_id.between(after_id + 1, to_id))
        rows = select(ledger).where(ledger.c.inbox_id.between(after_id + 1, to_id))
        with self._db.read() as connection:
            entered: dict[int, list[Entry]] = {number: [] for number in connection.scalars(events)}
            for row in connection.execute(rows.order_by(ledger.c.inbox_id, ledger.c.position)):
                entered.setdefault(row.inbox_id, []).append(_entry(row))
        return entered


def _latest(project: int) -> Subquery:
    """The project's entries but for annotations that are gone; those of the latest revision have the place 1.

    Where one revision came in several events, the first one counts.
    """
    place = func.dense_rank().over(
        partition_by=ledger.c.annotation, order_by=[ledger.c.revision.desc(), ledger.c.inbox_id]
    )
    return (
        select(*ledger.c, place.label("place"))
        .where(ledger.c.project == project, ledger.c.outcome != Outcome.WITHDRAWN)
        .where(ledger.c.annotation.not_in(_gone(project)))
        .subquery()
    )


def _gone(project: int) -> Select[tuple[int]]:
    """Annotations that were deleted, and that reconciliation has not seen since."""
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


def _entry(row: Row[tuple[object, ...]]) -> Entry:
    content = {column.name: row._mapping[column.name] for column in fields(Entry)}
    return Entry(**content | {"outcome": Outcome(row.outcome)})
