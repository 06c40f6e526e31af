"""The database's clock, by which processes on several machines agree on the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import Double, cast, func, select

from clapboard.errors import StoreError
from clapboard.store.database import Database

SYNC_EVERY_S = 10.0
_TRIES = 3

_NOW = select(cast(func.extract("epoch", func.clock_timestamp()), Double))


def steady() -> float:
    """Seconds on a clock that is never set. On Linux it also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class DatabaseClock:
    """Seconds since 1970 by PostgreSQL's clock, accurate to half of the query's round-trip time. Threads may share it.

    PostgreSQL's clock is read at the start and every 10 s. In between, and while the database can't be reached, a
    steady clock continues from there. SQLite has no clock; all processes that share its file use their machine's.
    """

    def __init__(
        self, database: Database, *, own: Callable[[], float] = time.time, steady: Callable[[], float] = steady
    ) -> None:
        """Raises `StoreError` if the database can't be reached. `own` is the machine's clock."""
        self._db = database
        self._own = own
        self._steady = steady
        self._turn = threading.Lock()
        self._ahead_s = 0.0  # the database's clock minus the steady one
        self._sync_at = 0.0
        if self._is_remote:
            self._sync()

    def __call__(self) -> float:
        """The time now."""
        if not self._is_remote:
            return self._own()
        if self._steady() >= self._sync_at and self._turn.acquire(blocking=False):
            try:
                self._sync()
            except StoreError:
                self._sync_at = self._steady() + SYNC_EVERY_S
            finally:
                self._turn.release()
        return self._steady() + self._ahead_s

    @property
    def _is_remote(self) -> bool:
        return self._db.engine.dialect.name == "postgresql"

    def _sync(self) -> None:
        """Read the database's clock a few times; the quickest reading is the most accurate."""
        readings = []
        with self._db.read() as connection:
            for _ in range(_TRIES):
                began = self._steady()
                seconds = float(connection.scalar(_NOW) or 0.0)
                took_s = self._steady() - began
                readings.append((took_s, seconds - began - took_s / 2))
        self._ahead_s = min(readings)[1]
        self._sync_at = self._steady() + SYNC_EVERY_S
