"""The first release's tables: pre-labelling."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table("schema_versions", sa.Column("version", sa.Integer, primary_key=True))
    op.bulk_insert(sa.table("schema_versions", sa.column("version", sa.Integer)), [{"version": 1}])
    _workers_and_projects()
    _audio()
    op.create_table(
        "predictions",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("model_version", sa.String, primary_key=True),
        sa.Column("uri_key", sa.String, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("delivery", sa.String, nullable=False),
        sa.Column("delivered_at", sa.Float, nullable=False),
    )
    op.create_index("predictions_by_delivery", "predictions", ["delivery", "project"])
    _jobs()
    op.create_table(
        "inbox",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("project", sa.BigInteger),
        sa.Column("body", sa.JSON, nullable=False),
    )
    op.create_index("inbox_by_project", "inbox", ["project", "id"])


def _workers_and_projects() -> None:
    op.create_table(
        "encoders",
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("dtype", sa.String, nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("logit_scale", sa.Float, nullable=False),
        sa.Column("announced_at", sa.Float, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("queues", sa.String, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("heartbeat_at", sa.Float, nullable=False),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("label_config", sa.Text, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("connected", sa.Boolean, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "label_spaces",
        sa.Column("head_id", sa.String, primary_key=True),
        sa.Column("label_config", sa.Text, nullable=False),
    )
    op.create_table(
        "class_weights",
        sa.Column("encoder_version", sa.String, primary_key=True),
        sa.Column("head_id", sa.String, sa.ForeignKey("label_spaces.head_id"), primary_key=True),
        sa.Column("num_rows", sa.Integer, nullable=False),
        sa.Column("matrix", sa.LargeBinary, nullable=False),
    )


def _audio() -> None:
    op.create_table(
        "recordings",
        sa.Column("uri_key", sa.String, primary_key=True),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("num_windows", sa.Integer, nullable=False),
        sa.Column("duration_s", sa.Float, nullable=False),
    )
    op.create_index("recordings_by_content", "recordings", ["sha256"])
    op.create_table(
        "embeddings",
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("encoder_version", sa.String, primary_key=True),
        sa.Column("dtype", sa.String, primary_key=True),
        sa.Column("window_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("queue", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("project", sa.BigInteger, nullable=False),
        sa.Column("task", sa.BigInteger, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("push", sa.Boolean, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("worker", sa.String),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("heartbeat_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("finished_at", sa.Float),
        sa.Column("error_code", sa.String),
        sa.Column("error", sa.Text),
    )
    op.create_index("jobs_to_claim", "jobs", ["state", "queue", "id"])
    op.create_index("jobs_by_subject", "jobs", ["project", "task", "model_version"])
    is_open = sa.text("state IN ('queued', 'running')")
    op.create_index(
        "jobs_open_once",
        "jobs",
        ["kind", "project", "task", "model_version"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
