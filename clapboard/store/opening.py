"""A store's schema when it is opened: made if the database is empty, brought up to date if an older release made it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, insert, inspect, select

from clapboard.errors import SettingsError
from clapboard.settings.state_folder import private_umask
from clapboard.store import schema
from clapboard.store.migrations import HEAD

_LOCK = 4302017

# The schema of the first revision that Alembic counts. Releases before it count in `schema_versions`, up to 4, and
# refuse a store with a higher number by a sentence.
LAST_COUNTED = 5

log = logging.getLogger(__name__)


def open_schema(engine: Engine) -> None:
    """Make or upgrade the tables. Raises `SettingsError` for a newer release's store and for another program's."""
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision is None and _create(engine):
        return
    if revision == HEAD:
        return
    _refuse_newer(revision)
    with _sole_upgrade(engine):
        _take_over(engine)
        from clapboard.store.migrations.upgrade import upgrade  # Alembic takes long to import

        upgrade(engine)


def _revision(connection: Connection) -> str | None:
    """The store's revision; None if Alembic hasn't counted it yet."""
    if not inspect(connection).has_table(schema.clapboard_revision.name):
        return None
    return connection.scalar(select(schema.clapboard_revision.c.version_num))


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and not (revision.isdecimal() and revision <= HEAD):
        raise _of_another_release(revision)


def _of_another_release(revision: object) -> SettingsError:
    return SettingsError(
        f"The store was written by another release of Clapboard (schema {revision}, this one has {HEAD}): use that "
        "release, or a new database."
    )


def _create(engine: Engine) -> bool:
    """Make all tables as they are now; False if the store has them, perhaps those of an older release."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        present = set(inspect(connection).get_table_names())
        if schema.schema_versions.name in present:
            return False
        if foreign := present & set(schema.metadata.tables):
            raise SettingsError(
                f"The store's database holds a table `{min(foreign)}` of another program: set CLAPBOARD_DATABASE_URL "
                "to a database of Clapboard's own."
            )
        schema.metadata.create_all(connection, checkfirst=False)
        connection.execute(insert(schema.schema_versions).values(version=LAST_COUNTED))
        connection.execute(insert(schema.clapboard_revision).values(version_num=HEAD))
    return True


def _take_over(engine: Engine) -> None:
    """Let Alembic count on from where `schema_versions` has counted to."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if (revision := _revision(connection)) is not None:
            _refuse_newer(revision)
            return
        version = connection.scalar(select(schema.schema_versions.c.version))
        if version is None or not 1 <= version < LAST_COUNTED:
            raise _of_another_release(version)
        schema.clapboard_revision.create(connection)
        connection.execute(insert(schema.clapboard_revision).values(version_num=f"{version:04}"))


@contextmanager
def _sole_upgrade(engine: Engine) -> Iterator[None]:
    """Hold the lock on upgrades of this store; whoever comes second waits, and then finds nothing left to do."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # with it the lock ends
            if not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LOCK})").scalar():
                log.warning(_WAITING)
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
            try:
                yield
            finally:
                connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
        return
    file = Path(f"{engine.url.database}-upgrade")
    lock = FileLock(file, mode=0o666 & ~private_umask(file.parent))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.warning(_WAITING)
        lock.acquire()
    try:
        yield
        with suppress(OSError):  # whoever waits for it finds the store upgraded
            file.unlink()
    finally:
        lock.release()


_WAITING = "Another process upgrades the store: this one waits until it has finished."
