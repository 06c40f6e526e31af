"""Recordings know since when no task has them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Add the column; for all that there are, the time begins when they are next looked at."""
    op.add_column("recordings", sa.Column("unused_since", sa.Float))
