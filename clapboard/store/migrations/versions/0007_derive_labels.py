"""Standing annotations, agreed labels and counts are kept, derived from the ledger; tasks get a random order."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered
from clapboard.store.migrations.batches import ROWS_AT_ONCE, has_table, in_batches

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """Make the tables and derive the annotations' states; labels are derived when they are first asked for."""
    if not has_table("learning"):
        op.add_column("tasks", sa.Column("draw", sa.BigInteger, nullable=False, server_default="0"))
        op.create_index("tasks_by_draw", "tasks", ["project", "draw"])
        _derived_tables()
    in_batches("order of tasks", _draw, total=_count("tasks"))
    in_batches(
        "standing annotations", _derive_states, total=_count("(SELECT DISTINCT project, annotation FROM ledger)")
    )
    in_batches("labelled tasks", _mark_tasks, total=_count("(SELECT DISTINCT project, task FROM annotation_states)"))
    op.execute(
        "INSERT INTO learning (project, num_entries, rules, generation, rests_until) "
        "SELECT project, count(*), '', 0, 0 FROM ledger GROUP BY project ON CONFLICT DO NOTHING"
    )


def _count(table: str) -> int:
    return int(op.get_bind().scalar(sa.text(f"SELECT count(*) FROM {table} AS counted")) or 0)


def _derived_tables() -> None:
    def key(name: str) -> sa.Column[Any]:
        return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)

    op.create_table(
        "annotation_states",
        key("project"),
        key("annotation"),
        sa.Column("task", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.Float, nullable=False),
        sa.Column("inbox_id", sa.BigInteger, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("withdrawn_by", sa.BigInteger, nullable=False),
        sa.Column("seen_by", sa.BigInteger, nullable=False),
        sa.Column("stands", sa.Boolean, nullable=False),
    )
    op.create_index("annotation_states_by_task", "annotation_states", ["project", "task"])
    op.create_table(
        "labelled_tasks",
        key("project"),
        key("task"),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("left_out", sa.JSON, nullable=False),
    )
    op.create_index("labelled_tasks_by_generation", "labelled_tasks", ["project", "generation", "task"])
    op.create_index("labelled_tasks_by_arrival", "labelled_tasks", ["project", "received_at"])
    op.create_table(
        "agreed_labels", key("project"), key("label_key"), key("draw"), key("task"), sqlite_with_rowid=False
    )
    op.create_table(
        "label_counts",
        key("project"),
        key("label_key"),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("control", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("num_tasks", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "learning",
        key("project"),
        sa.Column("num_entries", sa.BigInteger, nullable=False),
        sa.Column("rules", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("rests_until", sa.Float, nullable=False),
        sa.Column("channel", sa.String),
    )


def _draw(connection: sa.Connection) -> int:
    """Give some tasks the place that `task_labels.draw` gives them."""
    query = sa.text(f"SELECT project, task FROM tasks WHERE project = :project AND draw = 0 LIMIT {ROWS_AT_ONCE}")
    for project in connection.scalars(sa.text("SELECT DISTINCT project FROM tasks")).all():
        rows = [
            {"project": project, "task": task, "draw": _hash(f"{project}:{task}")}
            for project, task in connection.execute(query, {"project": project})
        ]
        if rows:
            connection.execute(sa.text("UPDATE tasks SET draw = :draw WHERE project = :project AND task = :task"), rows)
            return len(rows)
    return 0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _derive_states(connection: sa.Connection) -> int:
    """The states of the next annotations after those that have one."""
    last = connection.execute(
        sa.text("SELECT project, annotation FROM annotation_states ORDER BY project DESC, annotation DESC LIMIT 1")
    ).one_or_none()
    key = {"project": last.project if last else -1, "annotation": last.annotation if last else -1}
    rows = connection.execute(
        sa.text(
            "SELECT l.project, l.annotation, l.task, l.revision, l.inbox_id, l.model_version, l.outcome, e.reconciled "
            "FROM ledger l JOIN ledger_events e ON e.inbox_id = l.inbox_id JOIN (SELECT DISTINCT project, annotation "
            "FROM ledger WHERE project > :project OR (project = :project AND annotation > :annotation) "
            f"ORDER BY project, annotation LIMIT {ROWS_AT_ONCE}) n "
            "ON n.project = l.project AND n.annotation = l.annotation ORDER BY l.project, l.annotation"
        ),
        key,
    ).all()
    states = [_state(list(group)) for _, group in itertools.groupby(rows, lambda row: (row.project, row.annotation))]
    if states:
        names = ", ".join(states[0])
        values = ", ".join(f":{name}" for name in states[0])
        connection.execute(sa.text(f"INSERT INTO annotation_states ({names}) VALUES ({values})"), states)
    return len(states)


def _state(rows: list[Any]) -> dict[str, Any]:
    """The state of an annotation, from its rows of the ledger."""
    given = [row for row in rows if row.outcome != "withdrawn"]
    latest = min(given, key=lambda row: (-row.revision, row.inbox_id), default=None)
    withdrawn_by = max((row.inbox_id for row in rows if row.outcome == "withdrawn"), default=0)
    seen_by = max((row.inbox_id for row in given if row.reconciled), default=0)
    return {
        "project": rows[0].project,
        "annotation": rows[0].annotation,
        "task": latest.task if latest else 0,
        "revision": latest.revision if latest else 0.0,
        "inbox_id": latest.inbox_id if latest else 0,
        "model_version": latest.model_version if latest else "",
        "withdrawn_by": withdrawn_by,
        "seen_by": seen_by,
        "stands": latest is not None and withdrawn_by <= seen_by,
    }


def _mark_tasks(connection: sa.Connection) -> int:
    """Have the labels of the next tasks derived, which happens when they are first asked for."""
    marked = connection.execute(
        sa.text(
            "INSERT INTO labelled_tasks (project, task, generation, received_at, labels, left_out) "
            "SELECT l.project, l.task, 0, coalesce(max(i.received_at), 0), '{}', '[]' "
            "FROM ledger l LEFT JOIN inbox i ON i.id = l.inbox_id WHERE l.outcome <> 'withdrawn' "
            "GROUP BY l.project, l.task ON CONFLICT DO NOTHING"
        )
    )
    return marked.rowcount
