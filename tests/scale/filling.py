"""A store of a given size, filled by the database itself: a million jobs in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from clapboard.store import Store
from clapboard.store.migrations.tallies import tally_all, tally_triggers

PROJECT = 7
WORKER = "host-1"
QUEUE = "batch"
OURS = "mini float32"
THEIRS = "mini other float32"
VERSION = "mini-01234567.zero-shot.ffff0000"
NUM_VERSIONS = 10  # that predictions are kept of

_DONE, _FAILED, _RUNNING, _DELAYED, _FOREIGN = 0.80, 0.02, 8, 0.03, 0.10
"""Shares of the jobs, from the first on; the rest is queued for our workers."""


def fill(store: Store, num_jobs: int, num_tasks: int) -> None:
    """Write jobs in every state, and tasks, recordings, predictions of many versions, events and ledger entries."""
    now = store.clock()
    with _without_triggers(store) as connection:
        is_server = connection.dialect.name == "postgresql"
        for table, columns, num_rows in _rows(num_jobs, num_tasks, now, is_server):
            names, values = zip(*columns.items(), strict=True)
            numbers = (
                f"generate_series(1, {num_rows}) AS numbers(n)"
                if is_server
                else f"(WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT {num_rows}) "
                "SELECT n FROM numbers)"
            )
            statement = f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {numbers}"
            connection.exec_driver_sql(statement.replace("%", "%%") if is_server else statement)
    store.catalog.put_project(PROJECT, "<View/>", VERSION)
    with store.database.write() as connection:
        connection.exec_driver_sql("ANALYZE")


def _rows(num_jobs: int, num_tasks: int, now: float, is_server: bool) -> Iterator[tuple[str, dict[str, str], int]]:
    text = (lambda sql: f"CAST({sql} AS VARCHAR)") if is_server else (lambda sql: f"({sql})")
    json = "CAST('{}' AS JSON)" if is_server else "'{}'"
    done, failed = round(num_jobs * _DONE), round(num_jobs * (_DONE + _FAILED))
    running = failed + _RUNNING
    delayed, foreign = running + round(num_jobs * _DELAYED), running + round(num_jobs * (_DELAYED + _FOREIGN))
    state = (
        f"CASE WHEN n <= {done} THEN 'done' WHEN n <= {failed} THEN 'failed' WHEN n <= {running} THEN 'running' "
        "ELSE 'queued' END"
    )
    yield (
        "jobs",
        {
            "queue": f"'{QUEUE}'",
            "kind": f"CASE WHEN n % {math.ceil(num_jobs / 100)} = 1 THEN 'train' ELSE 'predict' END",
            "project": f"CASE WHEN n % {math.ceil(num_jobs / 100)} = 1 THEN {PROJECT} ELSE {PROJECT} + n % 3 END",
            "task": "n",
            "model_version": f"'{VERSION}'",
            "payload": json.format("{}"),
            "encoder": f"CASE WHEN n > {delayed} AND n <= {foreign} THEN '{THEIRS}' ELSE '{OURS}' END",
            "push": "TRUE",
            "state": state,
            "attempts": f"CASE WHEN n <= {running} THEN 1 ELSE 0 END",
            "worker": f"CASE WHEN n <= {running} THEN '{WORKER}' END",
            "not_before": f"CASE WHEN n > {running} AND n <= {delayed} THEN {now + 1e6} ELSE 0.0 END",
            "heartbeat_at": f"CASE WHEN n > {failed} AND n <= {running} THEN {now} END",
            "created_at": f"{now} - 100000.0 + n * {100000 / num_jobs}",
            "started_at": f"CASE WHEN n <= {running} THEN {now} - 20.0 - ({failed} - n) * 0.05 END",
            "finished_at": f"CASE WHEN n <= {failed} THEN {now} - 10.0 - ({failed} - n) * 0.05 END",
            "error_code": f"CASE WHEN n > {done} AND n <= {failed} THEN 'unreadable' END",
        },
        num_jobs,
    )
    key = text("'key' || n")
    yield (
        "tasks",
        {
            "project": str(PROJECT),
            "task": "n",
            "uri": text("'https://audio.example/' || n || '.wav'"),
            "uri_key": key,
            "source": text("'https://audio.example/' || (n / 4)"),
            "set_aside": "n % 10 = 0",
            "draw": "n * 7919 % 1000003",
        },
        num_tasks,
    )
    sha256 = "md5(n::text) || md5((n + 1)::text)" if is_server else "printf('%064d', n * 7919)"
    yield (
        "recordings",
        {"uri_key": key, "sha256": sha256, "num_windows": "1", "duration_s": "5.0", "damage": "''", "reading": "1"},
        num_tasks,
    )
    of_version = text(f"'version-' || (n % {NUM_VERSIONS})")
    yield (
        "predictions",
        {
            "project": str(PROJECT),
            "task": f"n / {NUM_VERSIONS}",
            "model_version": of_version,
            "uri_key": text(f"'key' || (n / {NUM_VERSIONS})"),
            "score": "0.5",
            "result": json.format("[]"),
            "delivery": "CASE WHEN n % 100 = 0 THEN 'owed' ELSE 'pushed' END",
            "delivered_at": f"CASE WHEN n % 100 = 0 THEN 0.0 ELSE {now} - 100000.0 + n * 0.01 END",
        },
        num_tasks * NUM_VERSIONS,
    )
    yield (
        "inbox",
        {
            "received_at": f"{now} - 1000.0",
            "action": "'ANNOTATION_CREATED'",
            "project": str(PROJECT),
            "body": json.format("{}"),
            "suggestions": json.format("{}"),
        },
        num_tasks,
    )
    yield "ledger_events", {"inbox_id": "n", "reconciled": "FALSE"}, num_tasks
    yield (
        "ledger",
        {
            "inbox_id": "n",
            "position": "0",
            "project": str(PROJECT),
            "task": "n",
            "annotation": "n",
            "revision": f"{now} - 1000.0",
            "annotator": "1",
            "outcome": "'accepted'",
            "control": "'sound'",
            "region": "''",
            "labels": json.format('["dog"]'),
            "suggested": json.format('["dog"]'),
            "model_version": f"'{VERSION}'",
            "ground_truth": "FALSE",
        },
        num_tasks,
    )
    state = {
        "project": str(PROJECT),
        "annotation": "n",
        "task": "n",
        "revision": f"{now} - 1000.0",
        "inbox_id": "n",
        "model_version": f"'{VERSION}'",
        "withdrawn_by": "0",
        "seen_by": "0",
        "stands": "TRUE",
    }
    yield "annotation_states", state, num_tasks


@contextmanager
def _without_triggers(store: Store) -> Iterator[Connection]:
    """A transaction whose rows are counted at its end, all at once, as an upgrade counts them."""
    with store.database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            yield connection
        else:
            listed = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            for name in connection.exec_driver_sql(listed).scalars().all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            yield connection
            for statement in tally_triggers("sqlite"):
                connection.exec_driver_sql(statement)
        for statement in tally_all():
            connection.exec_driver_sql(statement)
