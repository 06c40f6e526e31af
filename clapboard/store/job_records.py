"""Queries of the jobs table, by project, state and age. `clapboard.store.jobs` has what changes it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Row,
    Select,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    select,
    text,
)

from clapboard.errors import NotFoundError
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import WAITS_SINCE, job_tallies, jobs


class State(enum.StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


OPEN = (State.QUEUED, State.RUNNING)

# Spelt as in the indexes, which a database recognises only without parameters.
IS_OPEN = text("jobs.state IN ('queued', 'running')")
IS_QUEUED = text("jobs.state = 'queued'")
IS_RUNNING = text("jobs.state = 'running'")
IS_FAILED = text("jobs.state = 'failed'")


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

    def running(self, project: int, lease_s: float, *, task: int = 0) -> list[Job]:
        """The project's jobs that live workers are running; with a `task`, those that may be about it."""
        is_running = (jobs.c.state == State.RUNNING) & (jobs.c.heartbeat_at > self._clock() - lease_s)
        query = select(jobs).where(jobs.c.project == project, is_running).order_by(jobs.c.id)
        if task:
            query = query.where(jobs.c.task.in_([0, task]))
        with self._db.read() as connection:
            return [job_of(row) for row in connection.execute(query)]

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
        query = select(jobs).where(_of_kind(kind, project), jobs.c.started_at.is_not(None))
        query = query.order_by(jobs.c.id.desc()).limit(1)
        with self._db.read() as connection:
            row = connection.execute(query).one_or_none()
        return job_of(row) if row else None

    def open_versions(self, kind: str, project: int) -> list[str]:
        """The model versions that the project's open jobs of the kind are about, the oldest job's first."""
        query = select(jobs.c.model_version).where(jobs.c.kind == kind, jobs.c.project == project, IS_OPEN)
        with self._db.read() as connection:
            return list(connection.scalars(query.order_by(jobs.c.id)))

    def newest_open(self, kind: str, project: int) -> Job | None:
        """The project's newest open job of the kind, if there is one."""
        query = select(jobs).where(jobs.c.kind == kind, jobs.c.project == project, IS_OPEN)
        with self._db.read() as connection:
            row = connection.execute(query.order_by(jobs.c.id.desc()).limit(1)).one_or_none()
        return job_of(row) if row else None

    def last_ended(self, kind: str, project: int, state: State | None = None) -> Job | None:
        """The project's newest job of the kind that has ended: in this state, or in any."""
        ended = _of_kind(kind, project) & jobs.c.state.not_in(OPEN)
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
        if since_id:
            query = select(jobs.c.queue, jobs.c.state, func.count()).where(jobs.c.id > since_id)
            query = query if project is None else query.where(jobs.c.project == project)
            query = query.group_by(jobs.c.queue, jobs.c.state)
        else:
            query = _tally(job_tallies.c.queue, job_tallies.c.state)
            query = query if project is None else query.where(job_tallies.c.project == project)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return {(queue, State(state)): count for queue, state, count in rows}

    def num_open(self, project: int, model_version: str) -> int:
        """How many of the project's jobs for the version haven't ended."""
        of_version = (job_tallies.c.project == project) & (job_tallies.c.model_version == model_version)
        query = select(func.sum(job_tallies.c.num)).where(of_version, job_tallies.c.state.in_(OPEN))
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)

    def failed_since(self, project: int, model_version: str, since: float) -> list[Job]:
        """The project's jobs for the version that have failed since then."""
        of_version = (jobs.c.project == project) & (jobs.c.model_version == model_version)
        query = select(jobs).where(of_version, IS_FAILED, jobs.c.finished_at >= since)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(jobs.c.task))
            return [job_of(row) for row in rows]

    def failed_tasks(self, project: int, model_version: str) -> set[int]:
        """The project's tasks for which a job for the version has ever failed."""
        of_version = (jobs.c.project == project) & (jobs.c.model_version == model_version)
        with self._db.read() as connection:
            return set(connection.scalars(select(jobs.c.task).where(of_version, IS_FAILED)))

    def failed_for_good(self, project: int) -> set[int]:
        """The project's tasks whose newest prediction job, of any version, has failed."""
        newer = jobs.alias("newer")
        has_newer = exists().where(
            newer.c.project == jobs.c.project,
            newer.c.task == jobs.c.task,
            newer.c.kind == jobs.c.kind,
            newer.c.id > jobs.c.id,
        )
        query = select(jobs.c.task).where(jobs.c.project == project, jobs.c.kind == "predict", IS_FAILED, ~has_newer)
        with self._db.read() as connection:
            return set(connection.scalars(query))

    def num_to_predict(self, project: int) -> int:
        """How many of the project's tasks wait for a prediction, of any version, that will be pushed."""
        waits = (job_tallies.c.kind == "predict") & job_tallies.c.push.is_(True) & job_tallies.c.state.in_(OPEN)
        query = select(func.sum(job_tallies.c.num)).where(job_tallies.c.project == project, waits)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)

    def num_predicting(self, project: int) -> int:
        """How many of the project's tasks wait to be predicted, or to be embedded only."""
        waits = (job_tallies.c.kind == "predict") & job_tallies.c.state.in_(OPEN)
        query = select(func.sum(job_tallies.c.num)).where(job_tallies.c.project == project, waits)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)

    def failures(self) -> dict[str, int]:
        """How many jobs failed, by the error's code.

        A training that was refused before it was queued, as with too few labels, isn't among them: nothing broke.
        """
        query = _tally(job_tallies.c.failure).where(job_tallies.c.failure != "")
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def oldest_queued_s(self) -> dict[str, float]:
        """By queue, how long its oldest claimable job has waited, in seconds."""
        now = self._clock()
        with self._db.read() as connection:
            rows = connection.execute(_WAITING, {"now": now}).all()
        waits: dict[str, float] = {}
        for row in rows:
            waits[row.queue] = max(waits.get(row.queue, 0.0), now - row.since)
        return waits

    def queued_for(self) -> dict[str, int]:
        """How many jobs are queued, by the encoder that they need; see `claimable`."""
        query = _tally(job_tallies.c.encoder).where(job_tallies.c.state == State.QUEUED)
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def queues_with_work(self, queues: Iterable[str], encoders: Collection[str] | None = None) -> list[str]:
        """The queues that have a job which a worker with these encoders can claim now."""
        with self._db.read() as connection:
            rows = connection.execute(_WAITING, {"now": self._clock()}).all()
        with_work = {row.queue for row in rows if encoders is None or row.encoder in encoders}
        return [queue for queue in queues if queue in with_work]


def _tally(*columns: ColumnElement[Any]) -> Select[Any]:
    """The number of jobs by these columns of the tallies, without those that have none."""
    num = func.sum(job_tallies.c.num)
    return select(*columns, cast(num, BigInteger)).group_by(*columns).having(num > 0)


# By queue and encoder, since when the first job that can be claimed has waited.
_queued = _tally(job_tallies.c.queue, job_tallies.c.encoder).where(job_tallies.c.state == State.QUEUED).subquery()
_since = literal_column(WAITS_SINCE, Float)
_first = (
    select(_since)
    .where(IS_QUEUED, jobs.c.queue == _queued.c.queue, jobs.c.encoder == _queued.c.encoder)
    .order_by(_since)
    .limit(1)
    .select_from(jobs)
    .correlate(_queued)
    .scalar_subquery()
)
_firsts = select(_queued.c.queue, _queued.c.encoder, _first.label("since")).subquery()
_WAITING = select(_firsts).where(_firsts.c.since <= bindparam("now"))


def _of_kind(kind: str, project: int) -> ColumnElement[bool]:
    """The condition that a job is of this kind and project, so that an index serves it."""
    of_project = (jobs.c.project == project) & (jobs.c.kind == kind)
    return of_project if kind == "predict" else and_(of_project, text("jobs.kind <> 'predict'"))


def claimable(model: str, version: str, dtype: str) -> tuple[str, ...]:
    """The values of a job's `encoder` with which a worker that has this base model can claim it.

    They are: any worker; any worker with that CLAPBOARD_MODEL; one that loads a finetuned encoder in that dtype; and
    this very base model, since the same CLAPBOARD_MODEL can name different weights.
    """
    return "", model, f"{model} {number_format(dtype)}", f"{model} {version} {dtype}"


def number_format(dtype: str) -> str:
    """The dtype without its calibration, which each finetuned encoder has of its own: `int8` of `int8-0123abcd`."""
    return dtype.partition("-")[0]


def job_of(row: Row[Any]) -> Job:
    """The job of a row of the table."""
    columns = {
        name: value for name, value in row._mapping.items() if name not in {"encoder", "not_before", "heartbeat_at"}
    }
    return Job(**columns | {"state": State(row.state)})
