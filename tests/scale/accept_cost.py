"""What an accept costs in a large project: from an annotation's event in the inbox to a fitted head in the store.

The store is built in bulk: tasks with one-window recordings of a few heaps of sounds, half of them annotated. Then
somebody annotates one task after another, each by an event as Label Studio sends it, which one process learns from as a
worker would. What reaches Label Studio afterwards is not measured here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sqlalchemy import insert, text

from clapboard.model.clap import EncoderIdentity
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import READING
from clapboard.store.schema import embeddings, inbox, recordings
from clapboard.store.tasks import KnownTask
from demo.clips import label_config
from tests.scale.cases import Case, Measured, Size
from tests.support.annotation_events import annotation, clip, said
from tests.support.postgres_server import running_postgres
from workers.canaries import Canaries
from workers.encoder_pool import EncoderPool
from workers.head_cache import HeadCache
from workers.job_queue import JobQueue
from workers.refit import Refitter
from workers.rollout import RolloutProgress, Takeover
from workers.training_triggers import queue_due_training

SECONDS_AT_MOST = 0.5
FIRST_SECONDS_AT_MOST = 1.5  # it reads the sample's embeddings and imports what fits
GROWTH_AT_MOST = 1_000_000  # bytes

PROJECT = 6
LABELS = tuple(f"sound {number}" for number in range(10))
_DIM = 512
_SHARE_WRONG = 0.05
_ROWS_AT_ONCE = 5_000


@dataclass(frozen=True)
class AcceptCost:
    """Seconds of the first accept of a process and of the median one, and the store's growth by an accept in bytes."""

    first_s: float
    median_s: float
    growth: float


class _Encoder:
    """Embeds texts alone, at random."""

    identity = EncoderIdentity("scale", "0123456789abcdef", "float32", _DIM, 20.0)
    logit_scale = 20.0

    def embed_texts(self, texts: list[str]) -> np.ndarray[Any, Any]:
        rows = np.array([np.random.default_rng(len(text)).normal(size=_DIM) for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class _Sleeper:
    """Wakes no worker."""

    def wake(self, queue: str) -> bool:
        return bool(queue)


class _NoRollout:
    """Takes a version over by the project's pointer, as a rollout does, and delivers nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, takeover: Takeover, *, on_page: Callable[[int], None] = lambda _num: None) -> RolloutProgress:
        self._store.versions.promote(takeover.version.project, takeover.version.model_version)
        return RolloutProgress(0, 0)


def measure(url: str, num_tasks: int, num_accepts: int = 5) -> AcceptCost:
    """Build a store of so many tasks at the URL, and accept some of them."""
    settings = Settings(CLAPBOARD_MODEL="scale", CLAPBOARD_DATABASE_URL=url)
    with closing(Store.open(settings)) as store:
        labels = build(store, num_tasks)
        encoder: Any = _Encoder()
        rollout: Any = _NoRollout(store)
        heads = HeadCache(store)
        encoders = EncoderPool(encoder, _none, capacity=1)
        canaries = Canaries(settings, store, encoders, heads, _Sleeper())
        refitter = Refitter(settings, store, encoders, heads, rollout, canaries)
        refitter.run(PROJECT)  # derives what the store was filled with in bulk
        encoders = EncoderPool(encoder, _none, capacity=1)
        canaries = Canaries(settings, store, encoders, heads, _Sleeper())
        refitter = Refitter(settings, store, encoders, heads, rollout, canaries)
        seconds, before = [], store_size(store)
        queue = JobQueue(store, _Sleeper())
        for task in range(num_tasks, num_tasks - num_accepts - 1, -1):
            action, body = said(annotation(num_tasks + task, _result(LABELS[labels[task - 1]]), task=task, by=2))
            store.append_event(action, PROJECT, body)
            began = time.perf_counter()
            refitter.run(PROJECT)
            queue_due_training(settings, store, queue, PROJECT)
            seconds.append(time.perf_counter() - began)
        return AcceptCost(seconds[0], median(seconds[1:]), (store_size(store) - before) / len(seconds))


def build(store: Store, num_tasks: int) -> list[int]:
    """Fill the store; the label of each task, by its index."""
    identity = _Encoder.identity
    store.catalog.announce_encoder(
        Encoder(identity.model, identity.version, identity.dtype, identity.dim, identity.logit_scale)
    )
    store.catalog.put_project(PROJECT, label_config(list(LABELS)), "v1")
    store.catalog.set_connected(PROJECT)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(LABELS), _DIM)).astype(np.float32)
    labels: list[int] = []
    for first in range(1, num_tasks + 1, _ROWS_AT_ONCE):
        tasks = range(first, min(first + _ROWS_AT_ONCE, num_tasks + 1))
        heaps = rng.integers(len(LABELS), size=len(tasks))
        vectors = centres[heaps] + 3.0 * rng.normal(size=(len(tasks), _DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store.tasks.put(PROJECT, [KnownTask(task, _uri(task), f"{task:064x}", f"{task}", False) for task in tasks])
        wrong = rng.random(len(tasks)) < _SHARE_WRONG
        said_labels = np.where(wrong, rng.integers(len(LABELS), size=len(tasks)), heaps).tolist()
        with store.database.write() as connection:
            connection.execute(insert(recordings), [_recording(task) for task in tasks])
            connection.execute(insert(embeddings), list(_embeddings(tasks, vectors)))
            if events := list(_events(tasks, said_labels, num_tasks // 2)):
                connection.execute(insert(inbox), events)
        labels += heaps.tolist()
    store.ledger.catch_up()
    return labels


def _none(name: str) -> Any:
    raise AssertionError(name)


def _uri(task: int) -> str:
    return f"https://host.example/{task}.wav"


def _result(label: str) -> dict[str, Any]:
    return clip(label, control="sound")


def _recording(task: int) -> dict[str, Any]:
    key = f"{task:064x}"
    return {"uri_key": key, "sha256": key, "num_windows": 1, "duration_s": 10.0, "damage": "", "reading": READING}


def _embeddings(tasks: range, vectors: np.ndarray[Any, Any]) -> Iterator[dict[str, Any]]:
    version = {"encoder_version": _Encoder.identity.version, "dtype": _Encoder.identity.dtype, "window_index": 0}
    for task, vector in zip(tasks, vectors, strict=True):
        yield version | {"sha256": f"{task:064x}", "vector": vector.tobytes()}


def _events(tasks: range, labels: list[int], last_annotated: int) -> Iterator[dict[str, Any]]:
    for task, label in zip(tasks, labels, strict=True):
        if task <= last_annotated:
            action, body = said(annotation(task, _result(LABELS[label]), task=task))
            yield {"received_at": 0.0, "action": action, "project": PROJECT, "body": body, "suggestions": {}}


def store_size(store: Store) -> int:
    """The store's bytes on disk."""
    with store.database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    file = Path(str(store.database.engine.url.database))
    return file.stat().st_size


def _measure(size: Size) -> Iterator[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _on("SQLite", f"sqlite:///{folder}/clapboard.db", size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        with running_postgres(path) as socket:
            yield from _on("PostgreSQL", f"postgresql://postgres@/postgres?host={socket}", size)


def _on(database: str, url: str, size: Size) -> Iterator[Measured]:
    cost = measure(url, size.num_tasks)
    yield Measured(f"an accept, {database}", cost.median_s, SECONDS_AT_MOST, "s")
    yield Measured(f"the first of a process, {database}", cost.first_s, FIRST_SECONDS_AT_MOST, "s")
    yield Measured(f"growth of the store by an accept, {database}", cost.growth / 1e6, GROWTH_AT_MOST / 1e6, "MB")


CASE = Case("learning half of an accept", _measure)
