"""The catalog: workers and the encoders that they announced, projects, label spaces and their class weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Row, delete, select, update

from clapboard.errors import NotFoundError
from clapboard.store.database import Database
from clapboard.store.departures import is_forgotten
from clapboard.store.schema import class_weights, departures, encoders, label_spaces, label_studios, projects, workers

FORGET_WORKER_S = 86_400.0


@dataclass(frozen=True)
class Encoder:
    """An encoder as a worker announced it; `model` is what CLAPBOARD_MODEL says."""

    model: str
    version: str
    dtype: str
    dim: int
    logit_scale: float


@dataclass(frozen=True)
class Worker:
    """A worker process and its last heartbeat."""

    name: str
    model: str
    device: str
    queues: str
    started_at: float
    heartbeat_at: float
    encoder: str = ""  # its base model's, as «version dtype»
    computing: str = ""  # what its processor can, by what it computes, and why


@dataclass(frozen=True)
class Project:
    """A Label Studio project as it last introduced itself."""

    id: int
    label_config: str
    model_version: str
    connected: bool
    test_share: float = 0.0
    last_task: int = 0  # the newest that pre-labelling has seen; newer ones were imported since


class Catalog:
    """The tables of workers, encoders, projects and label spaces."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def announce_encoder(self, encoder: Encoder) -> None:
        """Record that a worker has loaded this encoder."""
        fresh = asdict(encoder) | {"announced_at": self._clock()}
        self._upsert(encoders, ["model"], fresh)

    def encoder(self, model: str) -> Encoder | None:
        """The encoder that was last announced for this value of CLAPBOARD_MODEL."""
        with self._db.read() as connection:
            row = connection.execute(select(encoders).where(encoders.c.model == model)).one_or_none()
        return Encoder(row.model, row.version, row.dtype, row.dim, row.logit_scale) if row else None

    def encoders(self) -> dict[str, Encoder]:
        """Every announced encoder by its model."""
        with self._db.read() as connection:
            rows = connection.execute(select(encoders)).all()
        return {row.model: Encoder(row.model, row.version, row.dtype, row.dim, row.logit_scale) for row in rows}

    def worker_alive(
        self, name: str, model: str, device: str, queues: str, encoder: str = "", computing: str = ""
    ) -> None:
        """Record the worker's heartbeat, and forget workers that have sent none for a day."""
        now = self._clock()
        fresh = {"model": model, "device": device, "queues": queues, "encoder": encoder, "heartbeat_at": now}
        fresh |= {"computing": computing}
        beat = self._db.insert(workers).values(name=name, started_at=now, **fresh)
        with self._db.write() as connection:
            connection.execute(beat.on_conflict_do_update(index_elements=["name"], set_=fresh))
            connection.execute(delete(workers).where(workers.c.heartbeat_at < now - FORGET_WORKER_S))

    def worker_gone(self, name: str) -> None:
        """Forget a worker that has shut down."""
        with self._db.write() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))

    def workers(self, within_s: float) -> list[Worker]:
        """The workers with a heartbeat in the last `within_s` seconds."""
        query = select(workers).where(workers.c.heartbeat_at >= self._clock() - within_s).order_by(workers.c.name)
        with self._db.read() as connection:
            return [Worker(**row._mapping) for row in connection.execute(query)]

    def put_project(self, project: int, label_config: str, model_version: str) -> None:
        """Store the project's label config and the model version that serves it, unless it was forgotten."""
        fresh = {"label_config": label_config, "model_version": model_version, "updated_at": self._clock()}
        statement = self._db.insert(projects).values(id=project, connected=False, **fresh)
        with self._db.write() as connection:
            if is_forgotten(connection, project):
                return
            connection.execute(statement.on_conflict_do_update(index_elements=[projects.c.id], set_=fresh))

    def set_connected(self, project: int, test_share: float = 0.0, last_task: int = 0) -> None:
        """Record that `clapboard connect` has connected the project to this backend.

        The first time decides the share of tasks that are held out, and that tasks after `last_task` are pre-labelled
        automatically; a project that comes back after it was disconnected keeps both.
        """
        first = (projects.c.id == project) & projects.c.connected.is_(False)
        fresh: dict[str, Any] = {"connected": True, "test_share": test_share, "last_task": last_task}
        left = departures.c.project == project, departures.c.task == 0, departures.c.kind == "disconnected"
        with self._db.write() as connection:
            if connection.execute(delete(departures).where(*left)).rowcount:
                fresh = {"connected": True}
            connection.execute(update(projects).where(first).values(fresh))

    def set_last_task(self, project: int, last_task: int) -> None:
        """Record that pre-labelling has seen all tasks up to this one."""
        is_older = (projects.c.id == project) & (projects.c.last_task < last_task)
        with self._db.write() as connection:
            connection.execute(update(projects).where(is_older).values(last_task=last_task))

    def connected_projects(self) -> dict[int, Project]:
        """The projects that `clapboard connect` has connected to this backend, by id in ascending order."""
        query = select(projects).where(projects.c.connected.is_(True)).order_by(projects.c.id)
        with self._db.read() as connection:
            return {row.id: _project(row) for row in connection.execute(query)}

    def project(self, project: int) -> Project:
        """The project. Raises `NotFoundError`."""
        with self._db.read() as connection:
            row = connection.execute(select(projects).where(projects.c.id == project)).one_or_none()
        if row is None:
            raise NotFoundError(f"Project {project} is unknown here: run `clapboard connect --project {project}`.")
        return _project(row)

    def put_public_address(self, label_studio_url: str, address: str) -> None:
        """Store Label Studio's public address, its LABEL_STUDIO_HOST."""
        statement = self._db.insert(label_studios)
        with self._db.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["url"], set_={"public_address": address}),
                {"url": label_studio_url, "public_address": address},
            )

    def public_address(self, label_studio_url: str) -> str:
        """Label Studio's public address, its LABEL_STUDIO_HOST; empty until it has sent it."""
        query = select(label_studios.c.public_address).where(label_studios.c.url == label_studio_url)
        with self._db.read() as connection:
            return connection.scalar(query) or ""

    def put_label_space(self, space_id: str, label_config: str) -> None:
        """Store a label config for the jobs that refer to it by its space id."""
        statement = self._db.insert(label_spaces).values(space_id=space_id, label_config=label_config)
        with self._db.write() as connection:
            connection.execute(statement.on_conflict_do_nothing())

    def label_config(self, space_id: str) -> str:
        """The label config of a label space. Raises `NotFoundError`."""
        query = select(label_spaces.c.label_config).where(label_spaces.c.space_id == space_id)
        with self._db.read() as connection:
            label_config = connection.scalar(query)
        if label_config is None:
            raise NotFoundError(f"Label space {space_id} is unknown here: open the project's ML settings once.")
        return str(label_config)

    def put_class_weights(self, encoder_version: str, space_id: str, matrix: npt.NDArray[np.float32]) -> None:
        """Store the class weights `[L, D]` of a label space for an encoder."""
        statement = self._db.insert(class_weights).values(
            encoder_version=encoder_version,
            space_id=space_id,
            num_rows=len(matrix),
            matrix=np.ascontiguousarray(matrix, "<f4").tobytes(),
        )
        with self._db.write() as connection:
            connection.execute(statement.on_conflict_do_nothing())

    def class_weights(self, encoder_version: str, space_id: str) -> npt.NDArray[np.float32] | None:
        """The class weights `[L, D]`, if a worker has computed them."""
        query = select(class_weights).where(
            class_weights.c.encoder_version == encoder_version, class_weights.c.space_id == space_id
        )
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return np.frombuffer(row.matrix, "<f4").reshape(row.num_rows, -1) if row else None

    def _upsert(self, table: Any, key: list[str], row: dict[str, Any]) -> None:
        fresh = {name: value for name, value in row.items() if name not in key}
        statement = self._db.insert(table).values(row)
        with self._db.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=key, set_=fresh))


def _project(row: Row[Any]) -> Project:
    return Project(row.id, row.label_config, row.model_version, row.connected, row.test_share, row.last_task)
