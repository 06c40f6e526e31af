"""Recent failures to fetch audio, so that no request waits for the same file, or the same unreachable host, again.

A failure is stored under its URI key, and if no connection could be made, under the host (`AudioSources.place`), too.
While a failure is recent, the audio isn't tried again unless a person asks for it; later it is, in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select

from clapboard.errors import ClapboardError
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import audio_failures

PASSING_S = 60.0
"""How long a transient failure (no connection, HTTP 5xx) is recent: long enough for a server to restart."""

LASTING_S = 600.0
"""How long a lasting failure (no such file, no audio, not allowed) is recent: it needs a person to mend it."""

UNREACHABLE_S = 30.0
"""How long a host counts as unreachable after a connection to it failed."""


@dataclass(frozen=True)
class KnownFailure:
    """Why audio couldn't be fetched, and whether that is too recent for another try."""

    error_code: str
    is_recent: bool


class AudioFailureStore:
    """The audio_failures table."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def put(self, failed: Mapping[str, ClapboardError]) -> None:
        """Record that these URI keys or hosts have just failed."""
        if not failed:
            return
        with self._db.write() as connection:
            self.put_within(connection, {subject: (error.code, error.retryable) for subject, error in failed.items()})

    def put_within(self, connection: Connection, failed: Mapping[str, tuple[str, bool]]) -> None:
        """The same in the caller's transaction, given each error's code and whether it is transient."""
        statement = self._db.insert(audio_failures)
        fresh = {name: statement.excluded[name] for name in ("error_code", "is_passing", "failed_at")}
        rows = [
            {"subject": subject, "error_code": code, "is_passing": is_transient, "failed_at": self._clock()}
            for subject, (code, is_transient) in sorted(failed.items())
        ]
        if rows:
            connection.execute(statement.on_conflict_do_update(index_elements=["subject"], set_=fresh), rows)

    def of(self, subjects: Collection[str]) -> dict[str, KnownFailure]:
        """The failures of those URI keys and hosts that have failed since they last succeeded."""
        now = self._clock()
        failures: dict[str, KnownFailure] = {}
        with self._db.read() as connection:
            for chunk in in_chunks(subjects):
                for row in connection.execute(select(audio_failures).where(audio_failures.c.subject.in_(chunk))):
                    failures[row.subject] = KnownFailure(row.error_code, now - row.failed_at < _recent_s(row))
        return failures

    def forget(self, subjects: Collection[str]) -> None:
        """Delete the failures of these URI keys and hosts, which have succeeded."""
        if not (failed := sorted(self.of(subjects))):  # the common case, which takes no write lock
            return
        with self._db.write() as connection:
            for chunk in in_chunks(failed):
                connection.execute(delete(audio_failures).where(audio_failures.c.subject.in_(chunk)))

    def forget_kinds(self, codes: Collection[str]) -> None:
        """Delete all failures with one of these error codes, for example because the settings have changed."""
        with self._db.write() as connection:
            connection.execute(delete(audio_failures).where(audio_failures.c.error_code.in_(codes)))


def _recent_s(row: Any) -> float:
    if "://" in row.subject:
        return UNREACHABLE_S
    return PASSING_S if row.is_passing else LASTING_S
