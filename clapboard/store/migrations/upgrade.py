"""Alembic, run from here instead of from its command line: no `alembic.ini` and no `env.py`."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from clapboard.store.migrations import HEAD, VERSIONS
from clapboard.store.schema import clapboard_revision

_LOCK_WAIT_S = 30

log = logging.getLogger(__name__)
logging.getLogger("alembic").setLevel(logging.WARNING)  # what it tells, `log` tells in our words


def upgrade(engine: Engine, to: str = HEAD) -> None:
    """Apply the revisions that the store doesn't have, each in a transaction that also records it."""
    scripts = ScriptDirectory(VERSIONS.parent, version_locations=[VERSIONS])

    def missing(heads: Any, _context: MigrationContext) -> Any:
        steps = scripts._upgrade_revs(to, heads)
        for step in steps:
            log.info("upgrade of the store: to schema %s", step.to_revisions_no_deps[0])
            yield step

    with engine.connect().execution_options(writes=True) as connection:
        if connection.dialect.name == "postgresql":
            # A change that waited for a long reader would keep everybody else waiting behind it.
            connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
            connection.commit()
        options = {
            "fn": missing,
            "transactional_ddl": True,  # SQLite's too
            "transaction_per_migration": True,
            "version_table": clapboard_revision.name,
        }
        context = MigrationContext.configure(connection, opts=options)
        with Operations.context(context), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*SQLite.*", category=UserWarning)
            context.run_migrations()
        connection.invalidate()  # it isn't as the store's others are any more
