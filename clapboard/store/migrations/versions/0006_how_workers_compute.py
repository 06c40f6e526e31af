"""What a worker's processor can, and by what it computes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Workers that are alive write it when they start anew."""
    op.add_column("workers", sa.Column("computing", sa.String, nullable=False, server_default=""))
