"""What the jobs table tells: jobs as they stand, by project, state and age. Changes nothing."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, case, func, select

from clapboard.errors import NotFoundError
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import jobs


class State(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


OPEN = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class Job:
    """A row of the queue."""

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
        """What log lines about it name, for `logs.about`."""
        told: dict[str, int | str] = {"project": self.project, "job": self.id}
        if self.task:
            told["task"] = self.task
        if self.model_version:
            told["model_version"] = self.model_version
        return told


class JobRecords:
    """The part of `JobStore` that only reads."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def open_ids(self, ids: Sequence[int]) -> set[int]:
        """Those of the jobs that haven't ended."""
        found: set[int] = set()
        with self._db.read() as connection:
            for some in in_chunks(ids):
                found |= set(connection.scalars(select(jobs.c.id).where(jobs.c.id.in_(some), jobs.c.state.in_(OPEN))))
        return found

    def states(self, ids: Sequence[int]) -> dict[int, State]:
        """Where each of the jobs stands."""
        found: dict[int, State] = {}
        with self._db.read() as connection:
            for some in in_chunks(ids):
                rows = connection.execute(select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(some)))
                found |= {job_id: State(state) for job_id, state in rows}
        return found

    def get(self, job_id: int) -> Job:
        """The job. Raises `NotFoundError`."""
        with self._db.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise NotFoundError(f"Job {job_id} doesn't exist: `clapboard jobs` lists the ones there are.")
        return job_of(row)

    def last(self, kind: str, project: int) -> Job | None:
        """The project's newest job of the kind that was ever begun, open or ended."""
        begun = (jobs.c.kind == kind) & (jobs.c.project == project) & jobs.c.started_at.is_not(None)
        query = select(jobs).where(begun).order_by(jobs.c.id.desc()).limit(1)
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
        """How many jobs each queue holds in each state."""
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

    def failures(self) -> dict[str, int]:
        """How many jobs failed, by the error's code."""
        query = select(jobs.c.error_code, func.count()).where(jobs.c.state == State.FAILED).group_by(jobs.c.error_code)
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def oldest_queued_s(self) -> dict[str, float]:
        """For each queue that holds any, how long its oldest job that may be claimed has waited, in seconds."""
        now = self._clock()
        due = (jobs.c.state == State.QUEUED) & (jobs.c.not_before <= now)
        waits_since = case((jobs.c.not_before > jobs.c.created_at, jobs.c.not_before), else_=jobs.c.created_at)
        query = select(jobs.c.queue, func.min(waits_since)).where(due).group_by(jobs.c.queue)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return {queue: now - since for queue, since in rows}

    def queues_with_work(self, queues: Iterable[str]) -> list[str]:
        """Those of the queues that hold a job which may be claimed now."""
        query = select(jobs.c.queue).distinct().where(jobs.c.state == State.QUEUED, jobs.c.not_before <= self._clock())
        with self._db.read() as connection:
            found = set(connection.scalars(query))
        return [queue for queue in queues if queue in found]


def job_of(row: Row[Any]) -> Job:
    """The job of a row of the table."""
    shown = {name: value for name, value in row._mapping.items() if name not in {"not_before", "heartbeat_at"}}
    return Job(**shown | {"state": State(row.state)})
