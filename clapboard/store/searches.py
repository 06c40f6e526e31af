"""Searches under way: the request, and then a worker's answer, until it is fetched."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlalchemy import delete, insert, select, update

from clapboard.store.database import Database
from clapboard.store.schema import searches

KEPT_S = 600.0
"""How long a search is kept whose client has vanished; it is deleted when the next one comes."""


class SearchStore:
    """The searches table. Its writes needn't survive a power cut, since the waiting requests wouldn't."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def ask(self, request: str) -> str:
        """Store a new search. Returns its id."""
        search, now = secrets.token_hex(8), self._clock()
        with self._db.write(durable=False) as connection:
            connection.execute(delete(searches).where(searches.c.asked_at < now - KEPT_S))
            connection.execute(insert(searches).values(id=search, request=request, asked_at=now))
        return search

    def request(self, search: str) -> str | None:
        """The request; None if nobody waits for the answer any more."""
        with self._db.read() as connection:
            return connection.scalar(select(searches.c.request).where(searches.c.id == search))

    def is_open(self, search: str) -> bool:
        """Whether the answer is still awaited. Doesn't read the request, which may hold audio."""
        with self._db.read() as connection:
            return connection.scalar(select(searches.c.id).where(searches.c.id == search)) is not None

    def answer(self, search: str, answer: str) -> None:
        """Store the answer, if it is still awaited."""
        with self._db.write(durable=False) as connection:
            connection.execute(update(searches).where(searches.c.id == search).values(answer=answer))

    def answer_to(self, search: str) -> str | None:
        """The answer; None until there is one."""
        with self._db.read() as connection:
            return connection.scalar(select(searches.c.answer).where(searches.c.id == search))

    def forget(self, search: str) -> None:
        """Delete the search."""
        with self._db.write(durable=False) as connection:
            connection.execute(delete(searches).where(searches.c.id == search))
