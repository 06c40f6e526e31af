"""Learning from annotations: ledger, tasks, heads and versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Make the new tables, and extend those of the first release."""
    op.add_column("projects", sa.Column("test_share", sa.Float, nullable=False, server_default="0"))
    op.add_column("projects", sa.Column("promoted", sa.String, nullable=False, server_default=""))
    op.execute("ALTER TABLE label_spaces RENAME COLUMN head_id TO space_id")
    op.execute("ALTER TABLE class_weights RENAME COLUMN head_id TO space_id")
    op.add_column("jobs", sa.Column("progress", sa.Text))
    op.add_column("inbox", sa.Column("suggestions", sa.JSON))
    _versions()
    op.create_table(
        "tasks",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("uri_key", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("set_aside", sa.Boolean, nullable=False),
    )
    _ledger()


def _versions() -> None:
    op.create_table(
        "heads",
        sa.Column("encoder_version", sa.String, primary_key=True),
        sa.Column("space_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("model_version", sa.String, primary_key=True),
        sa.Column("encoder", sa.String, nullable=False),
        sa.Column("encoder_version", sa.String, nullable=False),
        sa.Column("head", sa.String, nullable=False),
        sa.Column("space_id", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("promoted_at", sa.Float),
        sa.Column("manifest", sa.JSON, nullable=False),
    )
    op.create_index("versions_by_promotion", "versions", ["project", "promoted_at"])


def _ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("inbox_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("project", sa.BigInteger, nullable=False),
        sa.Column("task", sa.BigInteger, nullable=False),
        sa.Column("annotation", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.Float, nullable=False),
        sa.Column("annotator", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("control", sa.String, nullable=False),
        sa.Column("region", sa.String, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("suggested", sa.JSON, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("iou", sa.Float),
        sa.Column("lead_time_s", sa.Float),
        sa.Column("ground_truth", sa.Boolean, nullable=False),
    )
    op.create_index("ledger_by_annotation", "ledger", ["project", "annotation", "revision"])
    op.create_table(
        "ledger_events",
        sa.Column("inbox_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("reconciled", sa.Boolean, nullable=False),
    )
