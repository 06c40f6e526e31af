"""Projects and tasks that have left: `clapboard disconnect` and `clapboard forget`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Make the table of departures."""
    op.create_table(
        "departures",
        sa.Column("project", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("departed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "task"),
    )
