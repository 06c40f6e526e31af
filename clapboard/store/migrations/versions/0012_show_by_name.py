"""One name in Label Studio for all heads of an encoder and label space, and how far each project's tasks follow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Remember under which name each prediction was delivered; an empty one is the version's own, as before."""
    op.add_column("predictions", sa.Column("shown_as", sa.String, nullable=False, server_default=""))
    op.create_table(
        "displays",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("shown_as", sa.String, nullable=False),
        sa.Column("sampling", sa.String, nullable=False),
        sa.Column("annotations_per_task", sa.Integer, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("took_over_at", sa.Float, nullable=False),
        sa.Column("unswept_since", sa.Float, nullable=False),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sa.Column("has_wrapped", sa.Boolean, nullable=False),
        sa.Column("front", sa.BigInteger, nullable=False),
        sa.Column("is_live", sa.Boolean, nullable=False),
        sa.Column("awaits_embeddings", sa.Boolean, nullable=False),
        sa.Column("answer_s", sa.Float, nullable=False),
        sa.Column("rests_until", sa.Float, nullable=False),
    )
