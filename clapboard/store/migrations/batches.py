"""Changes of big tables in batches, so that a store stays usable and a killed upgrade goes on where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable

from alembic import op
from sqlalchemy import Connection, inspect

ROWS_AT_ONCE = 5_000

log = logging.getLogger(__name__)


def in_batches(what: str, change: Callable[[Connection], int], *, total: int) -> None:
    """Call `change` in transactions of its own until the number of rows that it changed is 0, and log the progress.

    What the revision did before is committed first. The revision counts as applied only at its end, so after a kill it
    runs again from its beginning: write `upgrade()` so that it skips what is done, see `has_table`.
    """
    num_changed = 0
    with op.get_context().autocommit_block():
        engine = op.get_bind().engine
        while True:
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                num_rows = change(connection)
            if not num_rows:
                return
            num_changed += num_rows
            log.info("upgrade of the store: %s: %s of %s rows", what, f"{num_changed:,}", f"{total:,}")


def has_table(name: str) -> bool:
    """Whether the store has a table of that name."""
    return inspect(op.get_bind()).has_table(name)
