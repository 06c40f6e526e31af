"""What is kept between two learnings of a project: until when Label Studio rests, and how the tasks are keyed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from clapboard.store.database import Database
from clapboard.store.schema import learning


class LearningStore:
    """The learning table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def rests_until(self, project: int) -> float:
        """When the project may be changed again, in seconds since 1970; 0 if it may be at once."""
        return float(self._value(learning.c.rests_until, project) or 0.0)

    def rest(self, project: int, until: float) -> None:
        """Let the project rest until then."""
        self._put(project, {"rests_until": until})

    def channel(self, project: int) -> str | None:
        """The audio channel that the project's tasks are keyed by, see `LabelSpace.channel`; None if nobody knows."""
        return self._value(learning.c.channel, project)

    def put_channel(self, project: int, channel: str) -> None:
        """Record that all of the project's tasks are keyed by the channel."""
        self._put(project, {"channel": channel})

    def _value(self, column: Any, project: int) -> Any:
        with self._db.read() as connection:
            return connection.scalar(select(column).where(learning.c.project == project))

    def _put(self, project: int, values: dict[str, Any]) -> None:
        statement = self._db.insert(learning).values(project=project, **values)
        with self._db.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["project"], set_=values))
