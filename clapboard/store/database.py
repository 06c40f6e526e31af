"""Opening the database: SQLite in WAL mode, or PostgreSQL, behind the same two verbs, `read` and `write`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
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
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError

from clapboard.errors import SettingsError
from clapboard.store import schema

_LOCK_WAIT_S = 30
_WAL_PAGES = 10_000  # 40 MB, so that an answer to thousands of tasks doesn't wait for the log to be cleared each time

Value = TypeVar("Value")


def in_chunks(values: Iterable[Value], size: int = 5_000) -> Iterator[list[Value]]:
    """The values in lists that fit into one statement: databases bound how many parameters it may have."""
    iterator = iter(values)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class Database:
    """The connection pool. `read()` and `write()` each give a connection inside one transaction."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        try:
            with self.write() as connection:
                _create_tables(connection)
        except DBAPIError as error:
            self.close()
            raise SettingsError(
                f"The store {self} can't be opened ({type(error.orig).__name__}): check CLAPBOARD_DATABASE_URL, that "
                "the server runs, and that the folder can be written to."
            ) from None
        except SettingsError:
            self.close()
            raise

    def __str__(self) -> str:
        return self.engine.url.set(query={}).render_as_string(hide_password=True)

    def read(self) -> AbstractContextManager[Connection]:
        """A consistent view; never waits for writers."""
        return self.engine.begin()

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that may write: committed at the end, rolled back on an exception.

        One that isn't `durable` doesn't wait for the disk: a kill leaves it whole, a power cut soon after may undo it.
        """
        options = {"writes": True, "durable": durable}
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            if not durable and connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    def insert(self, table: Table) -> Any:
        """An INSERT of the dialect, which can say `on_conflict_do_nothing` and `on_conflict_do_update`."""
        statement: type[Insert] = postgresql.Insert if self.engine.dialect.name == "postgresql" else sqlite.Insert
        return statement(table)

    def among(self, column: Column[Any], numbers: str) -> ColumnElement[bool]:
        """Whether the column is one of the numbers that a statement is executed with, under that name.

        However many they are, it is one parameter: a statement that is made once is compiled once, and has no bound.
        """
        if self.engine.dialect.name == "postgresql":
            return column == any_(bindparam(numbers, type_=postgresql.ARRAY(BigInteger)))
        listed = func.json_each(bindparam(numbers, type_=JSON)).table_valued("value")
        return column.in_(select(listed.c.value))

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
            raise ArgumentError
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() == "postgresql")
    except (ArgumentError, InvalidRequestError, ModuleNotFoundError, OSError, ValueError):
        raise SettingsError(
            "CLAPBOARD_DATABASE_URL is not usable: write sqlite:///FILE in a folder that can be written to, or "
            "postgresql://USER:PASSWORD@HOST/NAME with the extra `clapboard[postgres]` installed."
        ) from None
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine)
    return engine


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begun` says, not where sqlite3 guesses
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_LOCK_WAIT_S * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A writer takes its lock at once: one that read first could never get it after another writer's commit.
        options = connection.get_execution_options()
        if options.get("writes", False):
            # FULL: what a person accepted survives a power cut.
            level = "FULL" if options.get("durable", True) else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")


# By the schema that was found: what leads to the next one before new tables make themselves, and after.
_MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE projects ADD COLUMN test_share FLOAT NOT NULL DEFAULT 0",
        "ALTER TABLE projects ADD COLUMN promoted VARCHAR NOT NULL DEFAULT ''",
        "ALTER TABLE label_spaces RENAME COLUMN head_id TO space_id",
        "ALTER TABLE class_weights RENAME COLUMN head_id TO space_id",
        "ALTER TABLE jobs ADD COLUMN progress TEXT",
        "ALTER TABLE inbox ADD COLUMN suggestions JSON",
    ),
    2: ("ALTER TABLE embeddings RENAME TO embeddings_without_id",),
}
_COPIES: dict[int, tuple[str, ...]] = {
    2: (
        "INSERT INTO embeddings (sha256, encoder_version, dtype, window_index, vector) "
        "SELECT sha256, encoder_version, dtype, window_index, vector FROM embeddings_without_id",
        "DROP TABLE embeddings_without_id",
    ),
}


def _create_tables(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4302017)")  # several processes may start at once
    present = set(inspect(connection).get_table_names())
    if not (known := schema.schema_versions.name in present) and (foreign := present & set(schema.metadata.tables)):
        raise SettingsError(
            f"The store's database holds a table `{min(foreign)}` of another program: set CLAPBOARD_DATABASE_URL to a "
            "database of Clapboard's own."
        )
    found = connection.scalar(select(schema.schema_versions.c.version)) if known else None
    steps = range(found, schema.SCHEMA_VERSION) if found in _MIGRATIONS else range(0)
    for step in steps:
        _run(connection, _MIGRATIONS[step])
    schema.metadata.create_all(connection)
    for step in steps:
        _run(connection, _COPIES.get(step, ()))
    if steps:
        found = schema.SCHEMA_VERSION
        connection.execute(update(schema.schema_versions).values(version=found))
    if found is None:
        connection.execute(insert(schema.schema_versions).values(version=schema.SCHEMA_VERSION))
    elif found != schema.SCHEMA_VERSION:
        raise SettingsError(
            f"The store was written by another release of Clapboard (schema {found}, this one has "
            f"{schema.SCHEMA_VERSION}): use that release, or a new database."
        )


def _run(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)
