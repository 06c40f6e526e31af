"""Database errors → `StoreError`s of one sentence, without the SQL and its parameters, which hold people's data."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, IntegrityError, ProgrammingError, TimeoutError

from clapboard.errors import StoreDamaged, StoreError

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NOT_WRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_STATEMENT_FAULTS = (IntegrityError, DataError, ProgrammingError)


@contextmanager
def store_errors(store: str) -> Iterator[None]:
    """Turn database errors inside the `with` into `StoreError`s; `store` is the store's name without secrets."""
    try:
        yield
    except TimeoutError:
        raise StoreError(f"The store {store} has no free connection: too many requests use it at once.") from None
    except _STATEMENT_FAULTS:
        raise
    except DBAPIError as error:
        raise store_error(store, error) from None


def store_error(store: str, error: DBAPIError) -> StoreError:
    """The error with what happened and what to do."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _sqlite_error(store, cause)
    return _postgres_error(store, getattr(cause, "sqlstate", None) or "", isinstance(error, DatabaseError))


def _sqlite_error(store: str, cause: sqlite3.Error) -> StoreError:
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # there is none if a text wasn't UTF-8
    if code in _DAMAGED:
        return StoreDamaged(
            f"The store {store} is damaged: stop Clapboard and restore a back-up, or what `sqlite3 FILE .recover` "
            "saves. If there is neither, move the file away, and a new one will be made."
        )
    if code in _LOCKED:
        return StoreError(
            f"The store {store} is locked by another program: stop that program, or wait until it has finished."
        )
    if code in _NOT_WRITABLE:
        return StoreError(f"The store {store} can't be written to: check the permissions of its file and folder.")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return StoreError(f"The store {store} can't be written to: its disk is full or failing.")
    return StoreError(f"The store {store} can't be used ({type(cause).__name__}): look at its file.")


def _postgres_error(store: str, state: str, is_answer: bool) -> StoreError:
    if state.startswith("XX0"):
        return StoreDamaged(
            f"The store {store} is damaged, PostgreSQL reports ({state}): restore a back-up of the database."
        )
    if state == "53100":
        return StoreError(f"The store {store} can't be written to: its disk is full.")
    if state == "53200":
        return StoreError(
            f"The store {store} ran out of memory ({state}): PostgreSQL's log says of which, often that for its locks, "
            "which max_locks_per_transaction raises."
        )
    if state.startswith("53"):
        return StoreError(f"The store {store} has no room for another connection ({state}): raise max_connections.")
    if state.startswith(("40", "55")):
        return StoreError(f"The store {store} is locked by another transaction ({state}): try again.")
    why = f" ({state})" if state and is_answer else ""
    return StoreError(f"The store {store} can't be reached{why}: check that it runs, and CLAPBOARD_DATABASE_URL.")
