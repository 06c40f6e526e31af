"""Queries of the jobs table, by project, state and age. `clapboard.store.jobs` has what changes it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, case, func, select, true

from clapboard.errors import NotFoundError
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import jobs


class State(enum.StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


OPEN = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class Job:
    """A row of the jobs table."""

    id: int
    queue: str
    kind: str
    project: int
    task: int
    model_version: str
    payload: Mapping[str, Any]
    push: bool
    state: State
    attempts: int
    worker: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    error_code: str | None
    error: str | None
    progress: str | None = None

    @property
    def subject(self) -> dict[str, int | str]:
        """The fields that log lines about the job have, for `logs.about`."""
        fields: dict[str, int | str] = {"project": self.project, "job": self.id}
        if self.task:
            fields["task"] = self.task
        if self.model_version:
            fields["model_version"] = self.model_version
        return fields


class JobRecords:
    """The part of `JobStore` that only reads."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def open_ids(self, ids: Sequence[int]) -> set[int]:
        """The ids of the jobs that haven't ended."""
        open_ids: set[int] = set()
        with self._db.read() as connection:
            for chunk in in_chunks(ids):
                query = select(jobs.c.id).where(jobs.c.id.in_(chunk), jobs.c.state.in_(OPEN))
                open_ids |= set(connection.scalars(query))
        return open_ids

    def awaited_ids(self, ids: Sequence[int]) -> set[int]:
        """The ids of the jobs that run or can be claimed now; without those that wait for another try."""
        now = self._clock()
        is_awaited = (jobs.c.state == State.RUNNING) | ((jobs.c.state == State.QUEUED) & (jobs.c.not_before <= now))
        awaited_ids: set[int] = set()
        with self._db.read() as connection:
            for chunk in in_chunks(ids):
                awaited_ids |= set(connection.scalars(select(jobs.c.id).where(jobs.c.id.in_(chunk), is_awaited)))
        return awaited_ids

    def open_of(self, project: int, tasks: Collection[int], model_version: str) -> list[int]:
        """Ids of the open `predict` jobs for these tasks and the version."""
        subject = (jobs.c.kind == "predict") & (jobs.c.project == project) & (jobs.c.model_version == model_version)
        job_ids: list[int] = []
        with self._db.read() as connection:
            for chunk in in_chunks(tasks):
                job_ids += connection.scalars(
                    select(jobs.c.id).where(subject, jobs.c.task.in_(chunk), jobs.c.state.in_(OPEN))
                )
        return job_ids

    def states(self, ids: Sequence[int]) -> dict[int, State]:
        """The state of each of the jobs."""
        states: dict[int, State] = {}
        with self._db.read() as connection:
            for chunk in in_chunks(ids):
                rows = connection.execute(select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(chunk)))
                states |= {job_id: State(state) for job_id, state in rows}
        return states

    def get(self, job_id: int) -> Job:
        """The job. Raises `NotFoundError`."""
        with self._db.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise NotFoundError(f"Job {job_id} doesn't exist: `clapboard jobs` lists those that there are.")
        return job_of(row)

    def last(self, kind: str, project: int) -> Job | None:
        """The project's newest job of the kind that has ever started, open or ended."""
        has_started = (jobs.c.kind == kind) & (jobs.c.project == project) & jobs.c.started_at.is_not(None)
        query = select(jobs).where(has_started).order_by(jobs.c.id.desc()).limit(1)
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return job_of(row) if row else None

    def open_versions(self, kind: str, project: int) -> list[str]:
        """The model versions that the project's open jobs of the kind are about, the oldest job's first."""
        query = select(jobs.c.model_version).where(
            jobs.c.kind == kind, jobs.c.project == project, jobs.c.state.in_(OPEN)
        )
        with self._db.read() as connection:
            return list(connection.scalars(query.order_by(jobs.c.id)))

    def newest_open(self, kind: str, project: int) -> Job | None:
        """The project's newest open job of the kind, if there is one."""
        of_project = (jobs.c.kind == kind) & (jobs.c.project == project) & jobs.c.state.in_(OPEN)
        with self._db.read() as connection:
            row = connection.execute(select(jobs).where(of_project).order_by(jobs.c.id.desc()).limit(1)).one_or_none()
        return job_of(row) if row else None

    def last_ended(self, kind: str, project: int, state: State | None = None) -> Job | None:
        """The project's newest job of the kind that has ended: in this state, or in any."""
        ended = (jobs.c.kind == kind) & (jobs.c.project == project) & jobs.c.state.not_in(OPEN)
        if state is not None:
            ended &= jobs.c.state == state
        query = select(jobs).where(ended).order_by(jobs.c.id.desc()).limit(1)
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return job_of(row) if row else None

    def newest(self, *, project: int | None = None, state: State | None = None, limit: int = 50) -> list[Job]:
        """The newest jobs first."""
        query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        if project is not None:
            query = query.where(jobs.c.project == project)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._db.read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def counts(self, *, project: int | None = None, since_id: int = 0) -> dict[tuple[str, State], int]:
        """How many jobs there are, by queue and state."""
        query = select(jobs.c.queue, jobs.c.state, func.count()).where(jobs.c.id > since_id)
        if project is not None:
            query = query.where(jobs.c.project == project)
        with self._db.read() as connection:
            rows = connection.execute(query.group_by(jobs.c.queue, jobs.c.state)).all()
        return {(queue, State(state)): count for queue, state, count in rows}

    def num_open(self, project: int, model_version: str) -> int:
        """How many of the project's jobs for the version haven't ended."""
        of_version = (jobs.c.project == project) & (jobs.c.model_version == model_version)
        with self._db.read() as connection:
            query = select(func.count()).where(of_version, jobs.c.state.in_(OPEN))
            return int(connection.scalar(query) or 0)

    def failed_since(self, project: int, model_version: str, since: float) -> list[Job]:
        """The project's jobs for the version that have failed since then."""
        of_version = (jobs.c.project == project) & (jobs.c.model_version == model_version)
        late = (jobs.c.state == State.FAILED) & (jobs.c.finished_at >= since)
        with self._db.read() as connection:
            rows = connection.execute(select(jobs).where(of_version, late).order_by(jobs.c.task))
            return [job_of(row) for row in rows]

    def failed_tasks(self, project: int, model_version: str) -> set[int]:
        """The project's tasks for which a job for the version has ever failed."""
        of_version = (jobs.c.project == project) & (jobs.c.model_version == model_version)
        with self._db.read() as connection:
            return set(connection.scalars(select(jobs.c.task).where(of_version, jobs.c.state == State.FAILED)))

    def failed_for_good(self, project: int) -> set[int]:
        """The project's tasks whose newest prediction job, of any version, has failed."""
        of_project = (jobs.c.project == project) & (jobs.c.kind == "predict")
        newest = select(func.max(jobs.c.id)).where(of_project).group_by(jobs.c.task)
        query = select(jobs.c.task).where(jobs.c.id.in_(newest), jobs.c.state == State.FAILED)
        with self._db.read() as connection:
            return set(connection.scalars(query))

    def num_to_predict(self, project: int) -> int:
        """How many of the project's tasks wait for a prediction, of any version, that will be pushed."""
        waits = (jobs.c.kind == "predict") & jobs.c.push.is_(True) & jobs.c.state.in_(OPEN)
        with self._db.read() as connection:
            return int(connection.scalar(select(func.count()).where(jobs.c.project == project, waits)) or 0)

    def failures(self) -> dict[str, int]:
        """How many jobs failed, by the error's code.

        A training that was refused before it was queued, as with too few labels, isn't among them: nothing broke.
        """
        is_refused = (jobs.c.kind == "train") & jobs.c.started_at.is_(None)
        is_failed = (jobs.c.state == State.FAILED) & ~is_refused
        query = select(jobs.c.error_code, func.count()).where(is_failed).group_by(jobs.c.error_code)
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def oldest_queued_s(self) -> dict[str, float]:
        """By queue, how long its oldest claimable job has waited, in seconds."""
        now = self._clock()
        due = (jobs.c.state == State.QUEUED) & (jobs.c.not_before <= now)
        waits_since = case((jobs.c.not_before > jobs.c.created_at, jobs.c.not_before), else_=jobs.c.created_at)
        query = select(jobs.c.queue, func.min(waits_since)).where(due).group_by(jobs.c.queue)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return {queue: now - since for queue, since in rows}

    def queued_for(self) -> dict[str, int]:
        """How many jobs are queued, by the encoder that they need; see `claimable`."""
        query = select(jobs.c.encoder, func.count()).where(jobs.c.state == State.QUEUED).group_by(jobs.c.encoder)
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def queues_with_work(self, queues: Iterable[str], encoders: Collection[str] | None = None) -> list[str]:
        """The queues that have a job which a worker with these encoders can claim now."""
        due = (jobs.c.state == State.QUEUED) & (jobs.c.not_before <= self._clock())
        query = select(jobs.c.queue).distinct().where(due, is_for(encoders))
        with self._db.read() as connection:
            with_work = set(connection.scalars(query))
        return [queue for queue in queues if queue in with_work]


def claimable(model: str, version: str, dtype: str) -> tuple[str, ...]:
    """The values of a job's `encoder` with which a worker that has this base model can claim it.

    They are: any worker; any worker with that CLAPBOARD_MODEL; one that loads a finetuned encoder in that dtype; and
    this very base model, since the same CLAPBOARD_MODEL can name different weights.
    """
    return "", model, f"{model} {dtype}", f"{model} {version} {dtype}"


def is_for(encoders: Collection[str] | None) -> ColumnElement[bool]:
    """The condition that a job is for one of these encoders; None: for any."""
    return true() if encoders is None else jobs.c.encoder.in_(encoders)


def job_of(row: Row[Any]) -> Job:
    """The job of a row of the table."""
    columns = {
        name: value for name, value in row._mapping.items() if name not in {"encoder", "not_before", "heartbeat_at"}
    }
    return Job(**columns | {"state": State(row.state)})
