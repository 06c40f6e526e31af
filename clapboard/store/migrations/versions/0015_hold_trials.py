"""Versions on trial, and what people's labels say of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Add the tables; nothing is on trial yet."""
    op.create_table(
        "trial_answers",
        sa.Column("trial", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("task", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("lead", sa.Float(), nullable=False),
        sa.Column("right", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("trial", "task"),
    )
    op.create_index("trial_answers_of_project", "trial_answers", ["project", "task"], unique=False)
    op.create_table(
        "trials",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("num_labels", sa.Integer(), nullable=False),
        sa.Column("alpha", sa.Float(), nullable=False),
        sa.Column("shown_as", sa.String(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("after_event", sa.BigInteger(), nullable=False),
        sa.Column("looked_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("trials_of_project", "trials", ["project", "id"], unique=False)
    op.create_index(
        "trials_open_once",
        "trials",
        ["project", "kind"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
