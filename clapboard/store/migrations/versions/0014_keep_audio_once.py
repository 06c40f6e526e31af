"""The audio of `data:` URIs is kept once, by content; tasks, jobs and events refer to it."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from clapboard.store.inline_audio import REFERENCE, reference_of, without_audio
from clapboard.store.migrations import numbered
from clapboard.store.migrations.batches import has_table, in_batches

revision, down_revision = numbered(__file__)

_ROWS_AT_ONCE = 20  # each may have 16 MB
_IN_TASKS = "lower(substr(uri, 1, 100)) LIKE '%data:%' AND length(uri) >= 200"
_IN_JSON = "length(CAST({column} AS TEXT)) >= 200 AND lower(CAST({column} AS TEXT)) LIKE '%data:%'"


def upgrade() -> None:
    """Make the table, and move the audio of all rows there."""
    if not has_table("inline_audio"):
        op.create_table(
            "inline_audio",
            sa.Column("key", sa.String, primary_key=True),
            sa.Column("uri", sa.Text, nullable=False),
            sa.Column("unused_since", sa.Float),
        )
        where = sa.text("substr(uri, 1, 12) = 'data-sha256:'")
        op.create_index("tasks_with_inline_audio", "tasks", ["uri"], sqlite_where=where, postgresql_where=where)
    for what, table, key, column, condition in (
        ("tasks with audio in their address", "tasks", ("project", "task"), "uri", _IN_TASKS),
        ("jobs with audio in their address", "jobs", ("id",), "payload", _IN_JSON.format(column="payload")),
        ("events with audio in their address", "inbox", ("id",), "body", _IN_JSON.format(column="body")),
    ):
        total = int(op.get_bind().scalar(sa.text(f"SELECT count(*) FROM {table} WHERE {condition}")) or 0)
        if total:
            in_batches(what, _Moving(table, key, column, condition), total=total)


class _Moving:
    """Moves the audio of the next rows."""

    def __init__(self, table: str, key: tuple[str, ...], column: str, condition: str) -> None:
        self._table, self._key, self._column, self._condition = table, key, column, condition
        self._last: dict[str, int] = dict.fromkeys(key, -1)

    def __call__(self, connection: sa.Connection) -> int:
        names, values = ", ".join(self._key), ", ".join(f":{name}" for name in self._key)
        text = self._column if self._column == "uri" else f"CAST({self._column} AS TEXT)"
        rows = connection.execute(
            sa.text(
                f"SELECT {names}, {text} AS content FROM {self._table} WHERE {self._condition} "
                f"AND ({names}) > ({values}) ORDER BY {names} LIMIT {_ROWS_AT_ONCE}"
            ),
            self._last,
        ).all()
        same = " AND ".join(f"{name} = :{name}" for name in self._key)
        for row in rows:
            self._last = {name: getattr(row, name) for name in self._key}
            changed = self._moved(connection, row.content)
            if changed != row.content:
                update = f"UPDATE {self._table} SET {self._column} = :content WHERE {same}"
                connection.execute(sa.text(update), self._last | {"content": changed})
        return len(rows)

    def _moved(self, connection: sa.Connection, content: str) -> str:
        if self._column == "uri":
            return _kept(connection, content)
        value: dict[str, Any] = json.loads(content)
        if self._column == "body":
            return json.dumps(without_audio(value)) if isinstance(value, dict) else content
        if isinstance(value.get("uri"), str):
            value["uri"] = _kept(connection, value["uri"])
        return json.dumps(value)


def _kept(connection: sa.Connection, uri: str) -> str:
    """The reference to the audio, which is stored; or the address as it is."""
    reference = reference_of(uri)
    if reference != uri:
        row = {"key": reference.removeprefix(REFERENCE), "uri": uri}
        connection.execute(
            sa.text("INSERT INTO inline_audio (key, uri) VALUES (:key, :uri) ON CONFLICT DO NOTHING"), row
        )
    return reference
