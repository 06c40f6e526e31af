"""No hot query reads a whole big table, on either database."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event

from clapboard.store import Store
from tests.scale.filling import fill
from tests.scale.hot_queries import hot_queries

BIG = {"jobs", "predictions", "tasks", "recordings", "embeddings", "inbox", "ledger", "ledger_events"}
# Indexes that may be read from their beginning: of what is few at any time, or in the order that is asked for.
OF_FEW = {"jobs_running", "predictions_owed"}


@pytest.fixture
def filled(open_store: Callable[[], Store]) -> Store:
    """A store that is big enough for databases to choose as they do for a bigger one."""
    store = open_store()
    fill(store, num_jobs=20_000, num_tasks=2_000)
    return store


def test_no_hot_query_reads_a_whole_table(filled: Store) -> None:
    filled.tasks.contents(7)  # remembered from then on
    statements: dict[str, list[tuple[str, Any]]] = {}
    engine = filled.database.engine
    for name, query in hot_queries(filled).items():

        @event.listens_for(engine, "before_cursor_execute")
        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any, name: str = name) -> None:
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
                statements.setdefault(name, []).append((statement, parameters))

        query()
        event.remove(engine, "before_cursor_execute", note)
    assert set(statements) == set(hot_queries(filled))
    with filled.database.read() as connection:
        read_whole = {
            name: scans
            for name, noted in statements.items()
            for statement, parameters in noted
            if (scans := scanned(connection, statement, parameters))
        }
    assert read_whole == {}


def test_a_plan_that_reads_a_whole_table_is_noticed(filled: Store) -> None:
    with filled.database.read() as connection:
        assert scanned(connection, "SELECT count(*) FROM jobs WHERE error = 'x'", ()) == ["jobs"]
        assert scanned(connection, "SELECT count(*) FROM predictions WHERE score > 1", ()) == ["predictions"]


def scanned(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """The big tables that the statement reads as a whole, or by an index without a condition on it."""
    if connection.dialect.name == "postgresql":
        plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar()
        return [*_scanned_by_postgres((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])]
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    steps = [row[3].split() for row in rows if row[3].startswith("SCAN ") or " USING " not in row[3]]
    return [step[1] for step in steps if len(step) > 1 and step[1] in BIG and not OF_FEW & set(step)]


def _scanned_by_postgres(node: dict[str, Any]) -> list[str]:
    tables = [table for child in node.get("Plans", ()) for table in _scanned_by_postgres(child)]
    table = node.get("Relation Name")
    has_condition = "Index Cond" in node or "Recheck Cond" in node or node["Node Type"] == "ModifyTable"
    if table in BIG and not has_condition and node.get("Index Name") not in OF_FEW and "TID Cond" not in node:
        tables.append(table)
    return tables
