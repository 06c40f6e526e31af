"""Jobs and predictions are counted as they change, and the queries of workers have indexes of open jobs alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered
from clapboard.store.migrations.tallies import tally_all, tally_triggers

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Make the tallies and their triggers, count what there is, and exchange the indexes."""
    op.create_table(
        "job_tallies",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("queue", sa.String, primary_key=True),
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("model_version", sa.String, primary_key=True),
        sa.Column("encoder", sa.String, primary_key=True),
        sa.Column("push", sa.Boolean, primary_key=True),
        sa.Column("state", sa.String, primary_key=True),
        sa.Column("failure", sa.String, primary_key=True),
        sa.Column("session", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("num", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "prediction_tallies",
        sa.Column("project", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("model_version", sa.String, primary_key=True),
        sa.Column("delivery", sa.String, primary_key=True),
        sa.Column("session", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("num", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.Float, nullable=False),
    )
    op.create_table(
        "content_changes",
        sa.Column("session", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("num", sa.BigInteger, nullable=False),
    )
    for statement in (*tally_triggers(op.get_bind().dialect.name), *tally_all()):
        op.get_bind().exec_driver_sql(statement)
    op.drop_index("jobs_to_claim", "jobs")
    waits_since = sa.text("(CASE WHEN not_before > created_at THEN not_before ELSE created_at END)")
    _index("jobs_to_claim", "jobs", "state = 'queued'", "queue", "encoder", "id", "not_before")
    _index("jobs_waiting", "jobs", "state = 'queued'", "queue", "encoder", waits_since)
    _index("jobs_running", "jobs", "state = 'running'", "worker")
    _index("jobs_failed", "jobs", "state = 'failed'", "project", "model_version", "task")
    _index("jobs_of_project", "jobs", "kind <> 'predict'", "project", "kind", "id")
    _index("jobs_ended", "jobs", "finished_at IS NOT NULL", "finished_at")
    op.drop_index("predictions_by_delivery", "predictions")
    op.create_index("predictions_by_version", "predictions", ["project", "model_version", "delivered_at"])
    owed = "delivery IN ('owed', 'pushing')"
    _index("predictions_owed", "predictions", owed, "project", "model_version", "task", "delivered_at")


def _index(name: str, table: str, condition: str, *columns: str | sa.TextClause) -> None:
    where = sa.text(condition)
    op.create_index(name, table, list(columns), sqlite_where=where, postgresql_where=where)
