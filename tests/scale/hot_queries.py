"""The store's queries that workers, requests and pages wait for, each second or each accept."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from clapboard.project.ledger_report import LedgerReports
from clapboard.store import Store
from tests.scale.cases import Case, Measured, Size
from tests.scale.filling import OURS, PROJECT, QUEUE, VERSION, WORKER, fill
from tests.support.postgres_server import running_postgres

GOAL_MS = 20.0
_ROUNDS = 7
_ENCODERS = ("", "mini", OURS)


def hot_queries(store: Store) -> dict[str, Callable[[], object]]:
    """The queries by name. Each may be called many times."""
    return {
        "queues_with_work": lambda: store.jobs.queues_with_work(["interactive", QUEUE], _ENCODERS),
        "claim": lambda: store.jobs.claim("w", QUEUE, 8, together="predict", encoders=_ENCODERS),
        "heartbeat": lambda: store.jobs.heartbeat(WORKER),
        "requeue_lost": lambda: store.jobs.requeue_lost(3600.0),
        "progress of all": store.progress.under_way,
        "progress of a project": lambda: store.progress.under_way(PROJECT),
        "shown_names": lambda: store.predictions.shown_names(PROJECT),
        "last train": lambda: store.jobs.last("train", PROJECT),
        "last ended train": lambda: store.jobs.last_ended("train", PROJECT),
        "tasks.contents": lambda: store.tasks.contents(PROJECT),
        "metrics: counts": store.jobs.counts,
        "metrics: failures": store.jobs.failures,
        "metrics: oldest_queued_s": store.jobs.oldest_queued_s,
        "metrics: num_owed": store.predictions.num_owed,
        "queued_for": store.jobs.queued_for,
        "num_open": lambda: store.jobs.num_open(PROJECT, VERSION),
        "num_to_predict": lambda: store.jobs.num_to_predict(PROJECT),
        "take_for_push": lambda: store.predictions.take_for_push(10, 3600.0),
        "inbox.last_id": lambda: store.inbox.last_id(PROJECT),
    }


def reports(store: Store) -> dict[str, Callable[[], object]]:
    """What pages ask for: as long as nothing new was said, it isn't counted again."""
    ledger = LedgerReports(store)
    return {"ledger, nothing new": lambda: ledger.report(PROJECT), "events to enter": store.ledger.unread}


def _measure(size: Size) -> Iterator[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _on("SQLite", f"sqlite:///{folder}/clapboard.db", size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        with running_postgres(path) as socket:
            yield from _on("PostgreSQL", f"postgresql://postgres@/postgres?host={socket}", size)


def _on(database: str, url: str, size: Size) -> Iterator[Measured]:
    store = Store(url)
    try:
        fill(store, size.num_jobs, size.num_tasks)
        for name, query in {**hot_queries(store), **reports(store)}.items():
            query()  # compiles it, and fills the caches that a running process has
            times_ms = [_time_ms(query) for _ in range(_ROUNDS)]
            yield Measured(f"{name}, {database}", statistics.median(times_ms), GOAL_MS, "ms")
    finally:
        store.close()


def _time_ms(query: Callable[[], object]) -> float:
    start = time.perf_counter()
    query()
    return 1000 * (time.perf_counter() - start)


CASE = Case("hot query", _measure)
