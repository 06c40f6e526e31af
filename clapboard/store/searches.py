"""Searches that somebody waits for: what was asked, and a worker's answer, until it is fetched."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlalchemy import delete, insert, select, update

from clapboard.store.database import Database
from clapboard.store.schema import searches

KEPT_S = 600.0
"""A search whose asker vanished without a word is forgotten after so long, when the next one is asked."""


class SearchStore:
    """The searches table. Nothing in it needs to survive a power cut, since whoever waits wouldn't."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def ask(self, request: str) -> str:
        """The id of a new search."""
        search, now = secrets.token_hex(8), self._clock()
        with self._db.write(durable=False) as connection:
            connection.execute(delete(searches).where(searches.c.asked_at < now - KEPT_S))
            connection.execute(insert(searches).values(id=search, request=request, asked_at=now))
        return search

    def request(self, search: str) -> str | None:
        """What was asked, or None if nobody waits for the answer any more."""
        with self._db.read() as connection:
            return connection.scalar(select(searches.c.request).where(searches.c.id == search))

    def is_open(self, search: str) -> bool:
        """Whether somebody still waits for the answer. Without reading what was asked, which may hold audio."""
        with self._db.read() as connection:
            return connection.scalar(select(searches.c.id).where(searches.c.id == search)) is not None

    def answer(self, search: str, answer: str) -> None:
        """Give the answer to whoever still waits for it. Given twice, it is the same."""
        with self._db.write(durable=False) as connection:
            connection.execute(update(searches).where(searches.c.id == search).values(answer=answer))

    def answer_to(self, search: str) -> str | None:
        """The answer, once there is one."""
        with self._db.read() as connection:
            return connection.scalar(select(searches.c.answer).where(searches.c.id == search))

    def forget(self, search: str) -> None:
        """Nobody waits for it any more."""
        with self._db.write(durable=False) as connection:
            connection.execute(delete(searches).where(searches.c.id == search))
