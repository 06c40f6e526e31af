"""Locks on projects. Each is a lease that its holder renews, so that the lock of a killed process runs out."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, select

from clapboard.store.database import Database
from clapboard.store.schema import project_locks


class LockStore:
    """The project_locks table."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def take(self, project: int, holder: str, lease_s: float) -> bool:
        """Take or renew the lock for `lease_s` from now on; False while another holder has it."""
        now = self._clock()
        row = {"holder": holder, "held_until": now + lease_s}
        statement = self._db.insert(project_locks).values(project=project, **row)
        free = (project_locks.c.held_until <= now) | (project_locks.c.holder == holder)
        statement = statement.on_conflict_do_update(index_elements=["project"], set_=row, where=free)
        with self._db.write(durable=False) as connection:
            return connection.scalar(statement.returning(project_locks.c.project)) is not None

    def release(self, project: int, holder: str) -> None:
        """Give the lock back, if it is still the holder's."""
        mine = (project_locks.c.project == project) & (project_locks.c.holder == holder)
        with self._db.write(durable=False) as connection:
            connection.execute(delete(project_locks).where(mine))

    def holder(self, project: int) -> str | None:
        """The lock's present holder, if any."""
        is_held = (project_locks.c.project == project) & (project_locks.c.held_until > self._clock())
        with self._db.read() as connection:
            return connection.scalar(select(project_locks.c.holder).where(is_held))
