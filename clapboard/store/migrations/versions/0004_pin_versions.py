"""Pinned versions, plans, locks, renamed labels, annotators, access; jobs for one encoder; damage of recordings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Make the new tables, and extend the old ones."""
    op.add_column("projects", sa.Column("pinned", sa.String, nullable=False, server_default=""))
    op.add_column("projects", sa.Column("pinned_after", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("projects", sa.Column("last_task", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("encoder", sa.String, nullable=False, server_default=""))
    op.add_column("recordings", sa.Column("damage", sa.Text, nullable=False, server_default=""))
    op.add_column("recordings", sa.Column("reading", sa.Integer, nullable=False, server_default="0"))
    op.create_index("tasks_by_address", "tasks", ["uri_key", "project"])
    op.drop_table("workers")  # living workers write their row anew every second
    op.create_table(
        "workers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("queues", sa.String, nullable=False),
        sa.Column("encoder", sa.String, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("heartbeat_at", sa.Float, nullable=False),
    )
    op.create_table(
        "searches",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("asked_at", sa.Float, nullable=False),
        if_not_exists=True,  # some stores of schema 3 have it
    )
    _label_studio()
    _people()
    _work()


def _label_studio() -> None:
    op.create_table(
        "label_studios",
        sa.Column("url", sa.String, primary_key=True),
        sa.Column("public_address", sa.String, nullable=False),
    )
    op.create_table(
        "tabs",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("tab", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "credentials",
        sa.Column("user", sa.String, primary_key=True),
        sa.Column("password", sa.String, nullable=False),
        sa.Column("enforced", sa.Boolean, nullable=False),
    )
    op.create_table("backend_urls", sa.Column("url", sa.String, primary_key=True))


def _people() -> None:
    op.create_table(
        "label_renames",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("control", sa.String, primary_key=True),
        sa.Column("label", sa.String, primary_key=True),
        sa.Column("new_control", sa.String, nullable=False),
        sa.Column("new_label", sa.String, nullable=False),
    )
    op.create_table(
        "annotators",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String, nullable=False),
    )


def _work() -> None:
    op.create_table(
        "plans",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("schedule", sa.String, nullable=False),
        sa.Column("next_at", sa.Float, nullable=False),
        sa.Column("last_at", sa.Float),
    )
    op.create_table(
        "project_locks",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("held_until", sa.Float, nullable=False),
    )
    op.create_table(
        "audio_failures",
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("error_code", sa.String, nullable=False),
        sa.Column("is_passing", sa.Boolean, nullable=False),
        sa.Column("failed_at", sa.Float, nullable=False),
    )
