"""From here on Alembic counts. Releases before it read `schema_versions`, and refuse the store by what it now says."""

from __future__ import annotations

from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Tell older releases that the store is too new for them."""
    op.execute("UPDATE schema_versions SET version = 5")
