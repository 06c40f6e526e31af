"""Fills a project of a real Label Studio and our store side by side, straight into both databases.

Through its API, Label Studio 1.23.2 recounts the project at each import, so that 100,000 tasks would take it hours. One
task with one prediction is made through the API, and its rows are copied, with other contents. Label Studio may run
meanwhile: no row is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Engine, MetaData, Table, create_engine, insert, select, update

from clapboard.labels.label_config import parse_label_config
from clapboard.project.known_tasks import embedded
from clapboard.project.serving import find_serving, stored_head
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.embeddings import READING
from clapboard.store.prediction_records import Delivery, StoredPrediction
from clapboard.store.schema import embeddings, predictions, recordings
from clapboard.store.tasks import KnownTask
from clapboard.suggest.prediction import predict_many
from demo.label_studio_server import DATABASE, LabelStudioServer

ROWS_AT_ONCE = 5_000


@dataclass(frozen=True)
class Sounds:
    """Recordings of several heaps of sounds, one window each: their addresses, heaps and embeddings `[N, D]`."""

    addresses: Sequence[str]
    heaps: Sequence[int]
    vectors: np.ndarray[Any, Any]

    @classmethod
    def drawn(cls, num: int, num_heaps: int, dim: int, spread: float = 1.5) -> Sounds:
        """So many recordings; the spread is that of a heap around its centre, by component."""
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(num_heaps, dim)).astype(np.float32)
        heaps = rng.integers(num_heaps, size=num)
        vectors = centres[heaps] + spread * rng.normal(size=(num, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return cls([f"https://host.example/{number}.wav" for number in range(num)], heaps.tolist(), vectors)


def label_studio_engine(server: LabelStudioServer, url: str = "") -> Engine:
    """Label Studio's database: PostgreSQL at the URL, or the SQLite file in the server's folder."""
    return create_engine(url or f"sqlite:///{server.data_dir / DATABASE}")


def embed(store: Store, settings: Settings, sounds: Sounds) -> None:
    """What a worker would have done with the recordings."""
    encoder, sources = store.catalog.encoder(settings.model), AudioSources(settings)
    assert encoder is not None
    version = {"encoder_version": encoder.version, "dtype": encoder.dtype, "window_index": 0}
    for start in range(0, len(sounds.addresses), ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, len(sounds.addresses)))
        read = [
            {
                "uri_key": sources.key(sounds.addresses[number]),
                "sha256": f"{number:064x}",
                "num_windows": 1,
                "duration_s": 10.0,
                "damage": "",
                "reading": READING,
            }
            for number in numbers
        ]
        rows = [version | {"sha256": f"{n:064x}", "vector": sounds.vectors[n].tobytes()} for n in numbers]
        with store.database.write() as connection:
            connection.execute(insert(recordings), read)
            connection.execute(insert(embeddings), rows)


def copy_tasks(label_studio: Engine, project: int, addresses: Sequence[str]) -> list[int]:
    """Copies of the project's one task for all addresses but the first, which it has; the ids of all, ascending."""
    metadata = MetaData()
    task = Table("task", metadata, autoload_with=label_studio)
    of_project = task.c.project_id == project
    with label_studio.begin() as connection:
        first = dict(connection.execute(select(task).where(of_project)).one()._mapping)
        del first["id"]
        for start in range(1, len(addresses), ROWS_AT_ONCE):
            page = addresses[start : start + ROWS_AT_ONCE]
            rows = [
                first | {"data": _json(label_studio, {"audio": address}), "inner_id": start + 1 + number}
                for number, address in enumerate(page)
            ]
            connection.execute(insert(task), rows)
        return list(connection.scalars(select(task.c.id).where(of_project).order_by(task.c.id)))


def deliver(
    store: Store, settings: Settings, label_studio: Engine, project: int, tasks: dict[int, str], label_config: str
) -> None:
    """Predict the tasks, given by their addresses, zero-shot: as if all had been pushed.

    The first of them has its prediction in Label Studio and in the store already.
    """
    sources = AudioSources(settings)
    known = [KnownTask(task, uri, key := sources.key(uri), key, False) for task, uri in tasks.items()]
    prediction = Table("prediction", MetaData(), autoload_with=label_studio)
    with label_studio.begin() as connection:
        rows = connection.execute(select(prediction).where(prediction.c.task_id == known[0].task))
        first = {name: value for name, value in rows.one()._mapping.items() if name != "id"}
    for page in _pages(known[1:]):
        store.tasks.put(project, page)
        made = _predicted(store, settings, project, page, label_config)
        with label_studio.begin() as connection:
            copies = [
                first | {"task_id": new.task, "score": new.score, "result": _json(label_studio, new.result)}
                for new in made
            ]
            connection.execute(insert(prediction), copies)
        store.predictions.put_all(made, push=False)
        task_ids = [new.task for new in made]
        with store.database.write() as connection:
            of_page = (predictions.c.project == project) & predictions.c.task.between(task_ids[0], task_ids[-1])
            connection.execute(update(predictions).where(of_page).values(delivery=Delivery.PUSHED, delivered_at=1.0))
    store.catalog.set_last_task(project, known[-1].task)


def _predicted(
    store: Store, settings: Settings, project: int, page: Sequence[KnownTask], label_config: str
) -> list[StoredPrediction]:
    label_space = parse_label_config(label_config)
    serving = find_serving(store, settings.model, project, label_space)
    head = stored_head(store, serving, label_space)
    assert head is not None
    windows = embedded(store, list(page), serving.encoder)
    made = predict_many(label_space, [windows[task.task] for task in page], head, serving.model_version)
    return [
        StoredPrediction(project, task.task, serving.model_version, task.uri_key, one.score, one.result)
        for task, one in zip(page, made, strict=True)
    ]


def _pages(known: Sequence[KnownTask]) -> Iterator[Sequence[KnownTask]]:
    for start in range(0, len(known), ROWS_AT_ONCE):
        yield known[start : start + ROWS_AT_ONCE]


def _json(engine: Engine, value: Any) -> Any:
    """As the database's driver takes it: SQLite has it as text."""
    return json.dumps(value) if engine.dialect.name == "sqlite" else value
