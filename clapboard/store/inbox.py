"""The inbox: every webhook event as it arrived, on disk before Label Studio gets its 2xx response.

Only the audio of `data:` URIs isn't kept in it, see `inline_audio`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select

from clapboard.store.database import Database
from clapboard.store.departures import WHOLE_PROJECT, forgotten_tasks, without_tasks
from clapboard.store.inline_audio import without_audio
from clapboard.store.schema import inbox
from clapboard.untrusted import large_json


@dataclass(frozen=True)
class Event:
    """One webhook call."""

    id: int
    received_at: float
    action: str
    project: int | None
    body: Mapping[str, Any]
    suggestions: Mapping[str, Any]  # by task: the prediction that the event's annotations answered


class Inbox:
    """The inbox table."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def append(
        self, action: str, project: int | None, body: Mapping[str, Any], suggestions: Mapping[str, Any] | None = None
    ) -> int:
        """Store the event. Returns its id, once it is on disk; 0 if its project or task was forgotten."""
        statement = inbox.insert().values(
            received_at=self._clock(),
            action=action,
            project=project,
            body=large_json(dict(without_audio(body))),
            suggestions=dict(suggestions or {}),
        )
        with self._db.write() as connection:
            forgotten = forgotten_tasks(connection, project)
            if forgotten and (WHOLE_PROJECT in forgotten or without_tasks(body, forgotten) != dict(body)):
                return 0  # forgotten since the caller looked
            return int(connection.scalar(statement.returning(inbox.c.id)) or 0)

    def events(self, *, after_id: int = 0, project: int | None = None, limit: int = 1000) -> list[Event]:
        """Up to `limit` events after `after_id`, oldest first."""
        query = select(inbox).where(inbox.c.id > after_id).order_by(inbox.c.id).limit(limit)
        if project is not None:
            query = query.where(inbox.c.project == project)
        with self._db.read() as connection:
            return [_event(row) for row in connection.execute(query)]

    def last_id(self, project: int) -> int:
        """The id of the project's newest event; 0 if there is none."""
        with self._db.read() as connection:
            return int(connection.scalar(select(func.max(inbox.c.id)).where(inbox.c.project == project)) or 0)

    def last_annotated_at(self, project: int) -> float:
        """When the newest event about the project's annotations arrived; 0 if there was none."""
        about_annotations = (inbox.c.project == project) & inbox.c.action.startswith("ANNOTATION")
        with self._db.read() as connection:
            return float(connection.scalar(select(func.max(inbox.c.received_at)).where(about_annotations)) or 0.0)

    def counts(self, project: int | None = None) -> dict[str, int]:
        """How many events of each action have arrived."""
        query = select(inbox.c.action, func.count()).group_by(inbox.c.action)
        if project is not None:
            query = query.where(inbox.c.project == project)
        with self._db.read() as connection:
            return {row.action: row[1] for row in connection.execute(query)}


def _event(row: Row[Any]) -> Event:
    return Event(**dict(row._mapping) | {"suggestions": row.suggestions or {}})
