"""What is deleted once it is older than CLAPBOARD_KEEP_DAYS, in small batches, and the space given back.

Never deleted: open jobs; the newest job of each kind and outcome of a project, and a task's newest one; the events that
annotations stand by, with their entries in the ledger; what a task of any project still needs.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Column, ColumnElement, Connection, case, delete, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from clapboard.store.annotations import lock_ledger
from clapboard.store.database import Database
from clapboard.store.embeddings import EmbeddingStore
from clapboard.store.failures import store_errors
from clapboard.store.inline_audio import HAS_TASK
from clapboard.store.job_records import State
from clapboard.store.schema import (
    annotation_states,
    content_changes,
    inbox,
    inline_audio,
    job_tallies,
    jobs,
    ledger,
    ledger_events,
    metadata,
    prediction_tallies,
    recordings,
    tasks,
)

DAY_S = 86_400.0
AT_ONCE = 500
"""So many rows of a table are looked at in one transaction."""
REST_S = 60.0
"""Between two looks of a worker, unless there is more to delete."""

log = logging.getLogger(__name__)


@dataclass
class _Places:
    """How far a round has got, by table; a round begins anew at the table's beginning."""

    inbox_id: int = 0
    inbox_anew_at: float = 0.0  # when it is looked through from its beginning again
    uri_key: str = ""
    audio: str = ""


@dataclass
class Retention:
    """Deletes what is old. Several processes may do so at once."""

    database: Database
    clock: Callable[[], float]
    keep_days: float
    """0: for ever."""
    _places: _Places = field(default_factory=_Places)
    _rests_until: float = 0.0

    def look(self) -> None:
        """Delete a batch, if it is time to."""
        if self.keep_days and time.monotonic() >= self._rests_until:
            removed, is_more = self.step()
            if removed:
                log.info("deleted what is older than %g days: %s", self.keep_days, _in_words(removed))
            self._rests_until = 0.0 if is_more else time.monotonic() + REST_S

    def finish(self) -> Counter[str]:
        """Delete all that is old. Returns the numbers of rows by table."""
        removed: Counter[str] = Counter()
        is_more = bool(self.keep_days)
        while is_more:
            batch, is_more = self.step()
            removed += batch
        return removed

    def step(self) -> tuple[Counter[str], bool]:
        """Delete at most `AT_ONCE` rows of each table. Returns their numbers, and whether there may be more."""
        before = self.clock() - self.keep_days * DAY_S
        removed: Counter[str] = Counter()
        with self.database.write() as connection:
            removed["jobs"] = _delete_jobs(connection, before)
        with self.database.write() as connection:
            removed["events"], more_events = self._delete_events(connection, before)
        removed["recordings"], more_recordings = self._delete_recordings(before)
        removed["sounds in tasks"], more_audio = self._delete_audio(before)
        with self.database.write() as connection:
            _sum_up(connection)
        return +removed, removed["jobs"] == AT_ONCE or more_events or more_recordings or more_audio

    def _delete_events(self, connection: Connection, before: float) -> tuple[int, bool]:
        """Delete events that no annotation stands by, with their entries; not those that haven't been entered yet.

        The inbox's newest event stays, because SQLite would give its id to the next one.
        """
        lock_ledger(connection)
        page = select(inbox.c.id, inbox.c.received_at).where(inbox.c.id > self._places.inbox_id)
        rows = connection.execute(page.order_by(inbox.c.id).limit(AT_ONCE)).all()
        old = [row.id for row in itertools.takewhile(lambda row: row.received_at < before, rows)]
        newest = connection.scalar(select(func.max(inbox.c.id)))
        of_page = ledger_events.c.inbox_id.in_([number for number in old if number != newest])
        ids = connection.scalars(select(ledger_events.c.inbox_id).where(of_page, ~_IS_STOOD_BY)).all()
        for table, column in ((ledger, "inbox_id"), (ledger_events, "inbox_id"), (inbox, "id")):
            connection.execute(delete(table).where(table.c[column].in_(ids)))
        if not self._places.inbox_id:
            self._places.inbox_anew_at = self.clock() + DAY_S
        if old:
            self._places.inbox_id = old[-1]
        is_more = len(old) == AT_ONCE
        if not is_more and self.clock() >= self._places.inbox_anew_at:  # some have been replaced meanwhile
            self._places.inbox_id = 0
        return len(ids), is_more

    def _delete_recordings(self, before: float) -> tuple[int, bool]:
        has_task = exists().where(tasks.c.uri_key == recordings.c.uri_key)
        old, self._places.uri_key, is_more = self._unused(recordings.c.uri_key, has_task, self._places.uri_key, before)
        return EmbeddingStore(self.database).forget_unused(old), is_more

    def _delete_audio(self, before: float) -> tuple[int, bool]:
        """Delete the audio of `data:` URIs in the same way."""
        old, self._places.audio, is_more = self._unused(inline_audio.c.key, HAS_TASK, self._places.audio, before)
        still = (inline_audio.c.unused_since < before) & inline_audio.c.key.in_(old)
        with self.database.write() as connection:
            return connection.execute(delete(inline_audio).where(still)).rowcount if old else 0, is_more

    def _unused(
        self, key: Column[str], has_task: ColumnElement[bool], after: str, before: float
    ) -> tuple[list[str], str, bool]:
        """Note which rows of a page no task has any more.

        Returns the keys of those that none has had since `before`, where the next page begins, and whether there is
        one in this round.
        """
        table = key.table
        page = select(key, table.c.unused_since, has_task.label("has_task"))
        with self.database.read() as connection:
            rows = connection.execute(page.where(key > after).order_by(key).limit(AT_ONCE)).all()
        changed = [row[0] for row in rows if row.has_task != (row.unused_since is None)]
        old = [
            row[0] for row in rows if not row.has_task and row.unused_since is not None and row.unused_since < before
        ]
        if changed:
            since = case((has_task, None), else_=self.clock())
            free = select(key).where(key.in_(changed)).order_by(key)
            with self.database.write() as connection:
                keys = connection.scalars(free.with_for_update(skip_locked=True)).all()
                connection.execute(update(table).where(key.in_(keys)).values(unused_since=since))
        is_more = len(rows) == AT_ONCE
        return old, rows[-1][0] if is_more else "", is_more


_IS_STOOD_BY = exists(
    select(annotation_states.c.annotation)
    .join(
        ledger,
        (ledger.c.project == annotation_states.c.project) & (ledger.c.annotation == annotation_states.c.annotation),
    )
    .where(ledger.c.inbox_id == ledger_events.c.inbox_id)
    .where(
        or_(
            annotation_states.c.inbox_id == ledger.c.inbox_id,
            annotation_states.c.withdrawn_by == ledger.c.inbox_id,
            annotation_states.c.seen_by == ledger.c.inbox_id,
        )
    )
    .correlate(ledger_events)
)
"""Whether an annotation's state comes from the event: its latest revision, its deletion, or that it was seen again.

All are maxima, so that what isn't needed now won't be later, and the other events say the same without it.
"""


def _delete_jobs(connection: Connection, before: float) -> int:
    newer = jobs.alias("newer")
    same = (newer.c.project == jobs.c.project) & (newer.c.kind == jobs.c.kind) & (newer.c.id > jobs.c.id)
    is_replaced = case(
        (jobs.c.kind == "predict", exists().where(same, newer.c.task == jobs.c.task, newer.c.kind == "predict")),
        else_=exists().where(same, newer.c.state == jobs.c.state, text("newer.kind <> 'predict'")),
    )
    is_done_prediction = (jobs.c.kind == "predict") & (jobs.c.state == State.DONE)
    old = (
        select(jobs.c.id)
        .where(jobs.c.finished_at < before, jobs.c.state.in_([State.DONE, State.FAILED]))
        .where(or_(is_done_prediction, is_replaced))
        .order_by(jobs.c.finished_at)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(delete(jobs).where(jobs.c.id.in_(connection.scalars(old).all()))).rowcount


def _sum_up(connection: Connection) -> None:
    """Add the tallies of PostgreSQL's sessions up, since each session leaves rows of its own."""
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4302019)")
    for table in (job_tallies, prediction_tallies, content_changes):
        names = [column.name for column in table.primary_key if column.name != "session"]
        of_sessions = select(table).where(table.c.session != 0).with_for_update(skip_locked=True)
        rows = connection.execute(of_sessions).all()
        summed: dict[tuple[object, ...], list[float]] = {}
        for row in rows:
            key = tuple(row._mapping[name] for name in names)
            num, last_at = summed.get(key, [0, 0.0])
            summed[key] = [num + row.num, max(last_at, row._mapping.get("last_at", 0.0))]
        for row in rows:
            of_row = [table.c[name] == row._mapping[name] for name in (*names, "session")]
            connection.execute(delete(table).where(*of_row))
        for key, (num, last_at) in summed.items():
            values = dict(zip(names, key, strict=True)) | {"session": 0, "num": num}
            statement = insert(table).values(values | ({"last_at": last_at} if "last_at" in table.c else {}))
            new = {"num": table.c.num + statement.excluded.num}
            if "last_at" in table.c:
                new["last_at"] = func.greatest(table.c.last_at, statement.excluded.last_at)
            connection.execute(statement.on_conflict_do_update(index_elements=[*names, "session"], set_=new))


def compact(database: Database) -> tuple[int, int]:
    """Give the space of deleted rows back. Returns the store's size in bytes before and after it.

    Others can't write to SQLite meanwhile. PostgreSQL gives back what lies at its tables' ends, and reuses the rest.
    """
    before = _size(database)
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with store_errors(str(database)), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            for table in metadata.sorted_tables:
                connection.exec_driver_sql(f"VACUUM (ANALYZE) {table.name}")
        else:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("ANALYZE")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
        connection.invalidate()  # it isn't as the store's others are any more
    return before, _size(database)


def _size(database: Database) -> int:
    if database.engine.dialect.name == "postgresql":
        names = ", ".join(f"'{table.name}'" for table in metadata.sorted_tables)
        with database.read() as connection:
            sizes = f"SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(ARRAY[{names}]) AS name"
            return int(connection.exec_driver_sql(sizes).scalar() or 0)
    file = Path(str(database.engine.url.database))
    return sum(path.stat().st_size for path in (file, file.with_name(f"{file.name}-wal")) if path.exists())


def _in_words(removed: Counter[str]) -> str:
    return ", ".join(f"{num:,} {name}" for name, num in removed.items())
