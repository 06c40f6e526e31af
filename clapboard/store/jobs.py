"""What is owed: the queue's truth. The broker only rings; a job is claimed, heart-beaten and finished here.

A job is open (`queued`, `running`) or ended (`done`, `failed`). There is at most one open job for one subject (kind,
project, task, model version). A running job whose heartbeat stops is queued again, so that a killed worker loses
nothing; a job that was tried before is handed out alone, so that one which kills workers takes no neighbour along.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, case, select, text, update

from clapboard.errors import ClapboardError
from clapboard.store.database import Database, in_chunks
from clapboard.store.job_records import OPEN, Job, JobRecords, State, job_of
from clapboard.store.schema import jobs

__all__ = ["OPEN", "Job", "JobRequest", "JobStore", "State"]

RETRY_DELAY_S = 2.0
_INSERT_AT_ONCE = 500


@dataclass(frozen=True)
class JobRequest:
    """What somebody asks for. `task` is 0 where the job is about a whole project."""

    kind: str
    project: int
    task: int = 0
    model_version: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    push: bool = False
    # Not to be claimed before; None: at once, or when an open job for it says. What is due is not put off any more.
    delay_s: float | None = None

    @property
    def subject(self) -> tuple[str, int, int, str]:
        """What there is one open job for."""
        return self.kind, self.project, self.task, self.model_version


class JobStore(JobRecords):
    """The jobs table."""

    def __init__(self, database: Database, clock: Callable[[], float], max_attempts: int) -> None:
        super().__init__(database, clock)
        self._max_attempts = max_attempts

    def add(self, queue: str, requests: Sequence[JobRequest]) -> list[int]:
        """Ids of the open jobs for the requests, in their order: new ones, or those that were open already.

        An open job that is asked for by a more urgent queue moves there; one that somebody wants pushed is pushed.
        """
        ids: list[int] = []
        for some in in_chunks(requests, _INSERT_AT_ONCE):
            found: dict[tuple[str, int, int, str], int] = {}
            with self._db.write() as connection:
                for delay_s, alike in _in_turns(some):
                    found |= self._add_alike(connection, queue, alike, delay_s)
            ids += [found[request.subject] for request in some]
        return ids

    def record_failure(self, queue: str, request: JobRequest, error: ClapboardError) -> None:
        """Keep the reason why a request can't even be queued, as a job that has failed: one, however often."""
        now = self._clock()
        row = _row(queue, request, now) | {"state": State.FAILED, "finished_at": now, "attempts": 1}
        with self._db.write() as connection:
            same = _same_subject(request) & (jobs.c.state == State.FAILED) & (jobs.c.error == _reason(error))
            if connection.execute(update(jobs).where(same).values(finished_at=now)).rowcount == 0:
                connection.execute(jobs.insert().values(row | {"error_code": error.code, "error": _reason(error)}))

    def claim(self, worker: str, queue: str, limit: int, *, together: str = "") -> list[Job]:
        """Up to `limit` of the queue's oldest jobs, now running for this worker and for no other.

        Where `together` names a kind, a job of any other comes alone, as does always what was tried before.
        """
        now = self._clock()
        waiting = (
            select(jobs.c.id, jobs.c.kind, jobs.c.attempts)
            .where(jobs.c.state == State.QUEUED, jobs.c.queue == queue, jobs.c.not_before <= now)
            .order_by(jobs.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._db.write() as connection:
            rows = connection.execute(waiting).all()
            if not rows:
                return []
            among_others = [row.id for row in rows if row.attempts == 0 and row.kind == (together or row.kind)]
            chosen = among_others if rows[0].id in among_others else [rows[0].id]
            claimed = connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(chosen))
                .values(
                    state=State.RUNNING, worker=worker, attempts=jobs.c.attempts + 1, started_at=now, heartbeat_at=now
                )
                .returning(*jobs.c)
            ).all()
        return sorted(map(job_of, claimed), key=lambda job: job.id)

    def heartbeat(self, worker: str) -> None:
        """Say that the worker and all its running jobs are alive."""
        held = select(jobs.c.id).where(jobs.c.worker == worker, jobs.c.state == State.RUNNING)
        with self._db.write() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(held.with_for_update(skip_locked=True)))
                .values(heartbeat_at=self._clock())
            )

    def finish(self, connection: Connection, job: Job) -> bool | None:
        """End the job as done, in the caller's transaction; whether its result is owed through the API.

        None if the job is no longer this worker's, because its heartbeat had stopped: the caller discards its work.
        """
        return connection.scalar(
            update(jobs)
            .where(_still_held(job))
            .values(state=State.DONE, finished_at=self._clock(), error=None, error_code=None)
            .returning(jobs.c.push)
        )

    def done(self, job: Job, outcome: str | None = None) -> None:
        """End a job that leaves no prediction behind, with a word on what came of it."""
        with self._db.write() as connection:
            if self.finish(connection, job) is not None and outcome:
                connection.execute(update(jobs).where(jobs.c.id == job.id).values(error=outcome))

    def report(self, job: Job, progress: str) -> None:
        """Say how far a running job is."""
        with self._db.write() as connection:
            connection.execute(update(jobs).where(_still_held(job)).values(progress=progress))

    def put_off(self, job: Job, delay_s: float, progress: str) -> None:
        """Queue a running job again, to go on with it later: this try doesn't count."""
        later = {"state": State.QUEUED, "worker": None, "heartbeat_at": None, "progress": progress}
        with self._db.write() as connection:
            connection.execute(
                update(jobs)
                .where(_still_held(job))
                .values(later | {"attempts": job.attempts - 1, "not_before": self._clock() + delay_s})
            )

    def fail(self, job: Job, error: ClapboardError) -> State:
        """End the job as failed with its reason, or queue it again where another try may help; which of the two."""
        again = error.retryable and job.attempts < self._max_attempts
        now = self._clock()
        values: dict[str, Any] = {"error_code": error.code, "error": _reason(error), "heartbeat_at": None}
        if again:
            values |= {"state": State.QUEUED, "worker": None, "not_before": now + RETRY_DELAY_S * 2**job.attempts}
        else:
            values |= {"state": State.FAILED, "finished_at": now}
        with self._db.write() as connection:
            connection.execute(update(jobs).where(_still_held(job)).values(values))
        return State(values["state"])

    def requeue_lost(self, lease_s: float) -> set[str]:
        """Queue again every running job without a heartbeat for `lease_s`; the queues that now hold one.

        A job whose worker was lost `max_attempts` times counts as failed.
        """
        now = self._clock()
        silent = select(jobs.c.id).where(jobs.c.state == State.RUNNING, jobs.c.heartbeat_at < now - lease_s)
        reason = "The worker was lost each time it tried this job: look at its log and at the machine's memory."
        with self._db.write() as connection:
            ids = connection.scalars(silent.with_for_update(skip_locked=True)).all()
            lost = jobs.c.id.in_(ids) & (jobs.c.state == State.RUNNING)
            connection.execute(
                update(jobs)
                .where(lost, jobs.c.attempts >= self._max_attempts)
                .values(state=State.FAILED, finished_at=now, error_code="worker_lost", error=reason)
            )
            queues = connection.scalars(
                update(jobs).where(lost).values(state=State.QUEUED, worker=None).returning(jobs.c.queue)
            ).all()
        return set(queues)

    def owe_push(self, project: int, tasks: Sequence[int], model_version: str) -> None:
        """Have the results of the tasks' open jobs pushed through the API when they are there."""
        asked = (jobs.c.project == project) & (jobs.c.model_version == model_version) & jobs.c.state.in_(OPEN)
        with self._db.write() as connection:
            for some in in_chunks(sorted(tasks)):
                in_order = select(jobs.c.id).where(asked, jobs.c.task.in_(some)).order_by(jobs.c.kind, jobs.c.task)
                ids = connection.scalars(in_order.with_for_update()).all()
                connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(push=True))

    def _add_alike(
        self, connection: Connection, queue: str, requests: Sequence[JobRequest], delay_s: float | None
    ) -> dict[tuple[str, int, int, str], int]:
        """Ids by subject, of which there are no two alike, in one statement that inserts or joins."""
        now = self._clock()
        statement = self._db.insert(jobs)
        asked = statement.excluded
        changes = {"push": jobs.c.push | asked.push, "payload": asked.payload}
        if queue == "interactive":
            changes["queue"] = asked.queue
        if delay_s is not None:
            changes["not_before"] = case((jobs.c.not_before > now, now + delay_s), else_=jobs.c.not_before)
        statement = statement.on_conflict_do_update(index_elements=_SUBJECT, index_where=_IS_OPEN, set_=changes)
        rows = connection.execute(
            statement.returning(jobs.c.id, *_SUBJECT), [_row(queue, request, now) for request in requests]
        )
        return {tuple(subject): job_id for job_id, *subject in rows}


_SUBJECT = [jobs.c.kind, jobs.c.project, jobs.c.task, jobs.c.model_version]

# In the words of the index, which a database recognises without parameters alone.
_IS_OPEN = text("state IN ('queued', 'running')")


def _in_turns(requests: Sequence[JobRequest]) -> Iterator[tuple[float | None, list[JobRequest]]]:
    """The requests in lists of one delay in which no subject stands twice, each in the order of subjects.

    All who wait for several rows take them in that order, so that no two wait for each other.
    """
    turns: dict[int, list[JobRequest]] = defaultdict(list)
    seen: Counter[tuple[str, int, int, str]] = Counter()
    for request in requests:
        turns[seen[request.subject]].append(request)
        seen[request.subject] += 1
    for some in turns.values():
        in_order = sorted(some, key=lambda request: request.subject)
        for delay_s, alike in itertools.groupby(in_order, key=lambda request: request.delay_s):
            yield delay_s, list(alike)


def _row(queue: str, request: JobRequest, now: float) -> dict[str, Any]:
    return {
        "queue": queue,
        "kind": request.kind,
        "project": request.project,
        "task": request.task,
        "model_version": request.model_version,
        "payload": dict(request.payload),
        "push": request.push,
        "state": State.QUEUED,
        "attempts": 0,
        "not_before": now + request.delay_s if request.delay_s else 0.0,
        "created_at": now,
    }


def _same_subject(request: JobRequest) -> Any:
    kind, project, task, model_version = request.subject
    return and_(
        jobs.c.kind == kind, jobs.c.project == project, jobs.c.task == task, jobs.c.model_version == model_version
    )


def _still_held(job: Job) -> Any:
    """The job's row, while it is running at this very try."""
    return and_(
        jobs.c.id == job.id,
        jobs.c.state == State.RUNNING,
        jobs.c.worker == job.worker,
        jobs.c.attempts == job.attempts,
    )


def _reason(error: ClapboardError) -> str:
    """The error's sentence without what no database can hold: a file's name may have any character in it."""
    return str(error).encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
