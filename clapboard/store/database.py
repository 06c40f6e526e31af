"""The database: SQLite in WAL mode, or PostgreSQL. Both are used through `read` and `write`."""

from __future__ import annotations

import itertools
import sqlite3
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Table,
    any_,
    bindparam,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InvalidRequestError, OperationalError

from clapboard.errors import ClapboardError, SettingsError
from clapboard.settings.state_folder import private_umask
from clapboard.store.failures import store_error, store_errors
from clapboard.store.opening import open_schema
from clapboard.untrusted import storable_json

_LOCK_WAIT_S = 30
_CONNECT_S = 10  # unless the URL has a connect_timeout
_WAL_PAGES = 10_000  # 40 MB, so that answering thousands of tasks doesn't wait for a checkpoint each time

Value = TypeVar("Value")


def in_chunks(values: Iterable[Value], size: int = 5_000) -> Iterator[list[Value]]:
    """The values in lists of at most `size`, because databases limit the parameters of a statement."""
    iterator = iter(values)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class Database:
    """The connection pool. `read()` and `write()` each open a transaction."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        # A database that is dropped without `close` gives its connections back, too.
        weakref.finalize(self, self.engine.dispose)
        self._patience_s: ContextVar[float | None] = ContextVar("patience_s", default=None)
        try:
            open_schema(self.engine)
        except DBAPIError as error:
            self.close()
            raise _opening_error(str(self), error) from None
        except SettingsError:
            self.close()
            raise

    def __str__(self) -> str:
        return self.engine.url.set(query={}).render_as_string(hide_password=True)

    @contextmanager
    def read(self, *, by_index: bool = False) -> Iterator[Connection]:
        """A transaction with a consistent view, which never waits for writers. Raises `StoreError`, as `write` does.

        With `by_index`, PostgreSQL looks rows up by an index even where it would rather read the whole table, as for a
        few thousand rows of a hundred thousand: so the cost doesn't grow with the table.
        """
        with store_errors(str(self)), self.engine.begin() as connection:
            if by_index and connection.dialect.name == "postgresql":
                for plan in ("seqscan", "hashjoin", "mergejoin"):
                    connection.exec_driver_sql(f"SET LOCAL enable_{plan} = off")
                connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
            yield connection

    @contextmanager
    def hurried(self, patience_s: float) -> Iterator[None]:
        """Inside the `with`, this thread's writes wait at most that long for other writers, then raise `StoreError`."""
        token = self._patience_s.set(patience_s)
        try:
            yield
        finally:
            self._patience_s.reset(token)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that may write: committed at the end, rolled back on an exception.

        If it isn't `durable`, the commit doesn't wait for the disk: it survives a kill, but maybe not a power cut.
        """
        patience_s = self._patience_s.get()
        options = {"writes": True, "durable": durable, "patience_s": patience_s}
        with (
            store_errors(str(self)),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            if connection.dialect.name == "postgresql":
                if not durable:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                if patience_s is not None:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(1000 * patience_s)}")
            yield connection

    def insert(self, table: Table) -> Any:
        """The dialect's INSERT, which has `on_conflict_do_nothing` and `on_conflict_do_update`."""
        statement: type[Insert] = postgresql.Insert if self.engine.dialect.name == "postgresql" else sqlite.Insert
        return statement(table)

    def among(self, column: Column[Any], listed: str) -> ColumnElement[bool]:
        """The condition that the column is in the list that the statement gets as the parameter of that name.

        The list is a single parameter, so that the statement is compiled only once and the list has no length limit.
        """
        if self.engine.dialect.name == "postgresql":
            return column == any_(bindparam(listed, type_=postgresql.ARRAY(type(column.type))))
        values = func.json_each(bindparam(listed, type_=JSON)).table_valued("value")
        return column.in_(select(values.c.value))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _opening_error(store: str, error: DBAPIError) -> ClapboardError:
    """A `StoreError` if the database is down, locked, full or damaged; else a `SettingsError` about its URL."""
    is_another_file = getattr(error.orig, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN)
    is_refused = "FATAL" in str(error.orig) and "starting up" not in str(error.orig)  # by a running server
    if type(error) in (OperationalError, DatabaseError) and not is_another_file and not is_refused:
        return store_error(store, error)
    return SettingsError(
        f"The store {store} can't be opened ({type(error.orig).__name__}): check CLAPBOARD_DATABASE_URL, that it names "
        "a database, and that this user may use it."
    )


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
            raise ArgumentError
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            _make_file(Path(parsed.database))
        lock_wait_s = float(str(parsed.query.get("timeout", _LOCK_WAIT_S)))  # sqlite3's own option
        is_server = parsed.get_backend_name() == "postgresql"
        patience = {"connect_timeout": _CONNECT_S} if is_server and "connect_timeout" not in parsed.query else {}
        engine = create_engine(parsed, pool_pre_ping=is_server, json_serializer=storable_json, connect_args=patience)
    except (ArgumentError, InvalidRequestError, ModuleNotFoundError, OSError, ValueError):
        raise SettingsError(
            "CLAPBOARD_DATABASE_URL is not usable: write sqlite:///FILE in a folder that can be written to, or "
            "postgresql://USER:PASSWORD@HOST/NAME with the extra `clapboard[postgres]` installed."
        ) from None
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine, lock_wait_s)
    return engine


def _make_file(file: Path) -> None:
    """Create the database's file with its folder's permissions; SQLite gives its other files the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() and not str(file).startswith((":memory:", "file:")):
        file.touch()
        file.chmod(0o666 & ~private_umask(file.parent))


def _configure_sqlite(engine: Engine, lock_wait_s: float) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin in `begun`, not where sqlite3 would begin them
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(lock_wait_s * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # Writers lock at once, because SQLite refuses the lock to one that has read before another one's commit.
        options = connection.get_execution_options()
        if options.get("isolation_level") == "AUTOCOMMIT":
            return
        if options.get("writes", False):
            # FULL, so that what a person accepted survives a power cut
            level = "FULL" if options.get("durable", True) else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
            patience_s = options.get("patience_s")
            wait_s = lock_wait_s if patience_s is None else min(patience_s, lock_wait_s)
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(1000 * wait_s)}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")
