"""The ledger has the extents of regions, as they were annotated and as they were suggested."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.feedback.entries import entries
from clapboard.store.inbox import Event
from clapboard.store.migrations import numbered
from clapboard.store.migrations.batches import in_batches

revision, down_revision = numbered(__file__)

_COLUMNS = ("start_s", "end_s", "suggested_start_s", "suggested_end_s", "recording_s", "channel")
_EVENTS_AT_ONCE = 500


def upgrade() -> None:
    """Add the columns, and fill them for the regions of all events that the inbox still has."""
    present = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("ledger")}
    for name in _COLUMNS:
        if name not in present:
            op.add_column("ledger", sa.Column(name, sa.Integer if name == "channel" else sa.Float))
    regions = "ledger WHERE region <> '' AND start_s IS NULL AND suggested_start_s IS NULL"
    total = int(op.get_bind().scalar(sa.text(f"SELECT count(DISTINCT inbox_id) FROM {regions}")) or 0)
    if total:
        in_batches("events with regions", _Filling(), total=total)


class _Filling:
    """Fills the next events' rows; those whose extents are missing in the event too are passed over."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self, connection: sa.Connection) -> int:
        inbox = sa.table(
            "inbox",
            sa.column("id"),
            sa.column("received_at"),
            sa.column("action"),
            sa.column("project"),
            sa.column("body", sa.JSON),
            sa.column("suggestions", sa.JSON),
        )
        lacking = sa.text(
            "SELECT DISTINCT inbox_id FROM ledger WHERE region <> '' AND start_s IS NULL AND suggested_start_s IS NULL "
            f"AND inbox_id > :last ORDER BY inbox_id LIMIT {_EVENTS_AT_ONCE}"
        )
        numbers = connection.scalars(lacking, {"last": self._last}).all()
        rows = []
        for row in connection.execute(sa.select(inbox).where(inbox.c.id.in_(numbers))):
            event = Event(row.id, row.received_at, row.action, row.project, row.body, row.suggestions or {})
            rows += [
                {name: getattr(entry, name) for name in (*_COLUMNS, "annotation", "control", "region")}
                | {"inbox_id": row.id}
                for entry in entries(event)
                if entry.region
            ]
        if rows:
            values = ", ".join(f"{name} = :{name}" for name in _COLUMNS)
            key = " AND ".join(f"{name} = :{name}" for name in ("inbox_id", "annotation", "control", "region"))
            connection.execute(sa.text(f"UPDATE ledger SET {values} WHERE {key}"), rows)
        self._last = max(numbers, default=self._last)
        return len(numbers)
