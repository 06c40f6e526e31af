"""Access to the backend: the password that `clapboard connect` made, and the addresses that it gave Label Studio."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from sqlalchemy import select, update

from clapboard.store.database import Database
from clapboard.store.schema import backend_urls, credentials

USER = "label-studio"
_PASSWORD_BYTES = 24


@dataclass(frozen=True)
class Credentials:
    """A user and password for basic auth; `enforced` once Label Studio has them and the backend requires them."""

    user: str
    password: str = field(repr=False)
    enforced: bool


class AccessStore:
    """The credentials and backend_urls tables."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def make(self) -> Credentials:
        """The credentials; made now if there are none. Concurrent callers get the same ones."""
        made = {"user": USER, "password": secrets.token_urlsafe(_PASSWORD_BYTES), "enforced": False}
        with self._db.write() as connection:
            connection.execute(self._db.insert(credentials).values(made).on_conflict_do_nothing())
            row = connection.execute(select(credentials)).one()
        return Credentials(row.user, row.password, row.enforced)

    def enforce(self) -> bool:
        """Make the backends require the password from now on. Returns whether they didn't before."""
        with self._db.write() as connection:
            waiting = credentials.c.enforced.is_(False)
            return connection.execute(update(credentials).where(waiting).values(enforced=True)).rowcount > 0

    def credentials(self) -> Credentials | None:
        """The credentials, if any were made."""
        with self._db.read() as connection:
            row = connection.execute(select(credentials)).one_or_none()
        return Credentials(row.user, row.password, row.enforced) if row else None

    def add_url(self, url: str) -> None:
        """Record an address at which Label Studio reaches the backend."""
        with self._db.write() as connection:
            connection.execute(self._db.insert(backend_urls).values(url=url).on_conflict_do_nothing())

    def urls(self) -> frozenset[str]:
        """The addresses at which Label Studio reaches the backend, or once did."""
        with self._db.read() as connection:
            return frozenset(connection.scalars(select(backend_urls.c.url)))
