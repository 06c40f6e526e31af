"""The job queue. The broker only wakes workers up; jobs are claimed, kept alive and finished in this table.

A job is open (`queued`, `running`) or ended (`done`, `failed`). There is at most one open job for a subject (kind,
project, task, model version). A running job whose heartbeat stops is queued again, so that a killed worker loses
nothing. A job that was tried before is claimed alone, so that a job which kills workers takes no others down with it.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, delete, select, text, update

from clapboard.errors import ClapboardError
from clapboard.store.audio_failures import AudioFailureStore
from clapboard.store.database import Database, in_chunks
from clapboard.store.departures import remembered
from clapboard.store.inline_audio import keep_payloads, with_audio
from clapboard.store.job_records import IS_QUEUED, IS_RUNNING, OPEN, Job, JobRecords, State, job_of
from clapboard.store.schema import job_tallies, jobs

__all__ = ["OPEN", "Job", "JobRequest", "JobStore", "State"]

RETRY_DELAY_S = 2.0
_INSERT_AT_ONCE = 500


@dataclass(frozen=True)
class JobRequest:
    """A job to queue. `task` is 0 if the job is about a whole project."""

    kind: str
    project: int
    task: int = 0
    model_version: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    push: bool = False
    # How long it can't be claimed yet. None: it is due at once, or when an open job for the subject is. An open job
    # that is due already stays due.
    delay_s: float | None = None
    # What the worker needs besides the store's model: «version dtype» of its base model, or «dtype» for a finetuned
    # encoder, which it loads on demand.
    encoder: str = ""

    @property
    def subject(self) -> tuple[str, int, int, str]:
        """What there is at most one open job for."""
        return self.kind, self.project, self.task, self.model_version


class JobStore(JobRecords):
    """The jobs table."""

    def __init__(self, database: Database, clock: Callable[[], float], max_attempts: int, model: str = "") -> None:
        super().__init__(database, clock)
        self._max_attempts = max_attempts
        self._model = model
        self._failures = AudioFailureStore(database, clock)

    def add(self, queue: str, requests: Sequence[JobRequest]) -> list[int]:
        """Queue the requests; the ids of their open jobs in the same order, without those about what was forgotten.

        If the job is already open, it moves to the more urgent of the two queues, and is pushed if either asker wants
        that. If it is already running, it remembers that it was asked for again, see `asked_again`.
        """
        ids: list[int] = []
        for chunk in in_chunks(requests, _INSERT_AT_ONCE):
            by_subject: dict[tuple[str, int, int, str], int] = {}
            with self._db.write() as connection:
                for delay_s, batch in _batches(chunk):
                    by_subject |= self._add_batch(connection, queue, batch, delay_s)
            ids += [by_subject[request.subject] for request in chunk if request.subject in by_subject]
        return ids

    def add_unless_open(self, connection: Connection, queue: str, requests: Sequence[JobRequest]) -> None:
        """Queue the requests that have no open job, in the caller's transaction."""
        now = self._clock()
        statement = self._db.insert(jobs).on_conflict_do_nothing(index_elements=_SUBJECT, index_where=_IS_OPEN)
        if rows := remembered(connection, [self._row(queue, request, now) for request in requests]):
            connection.execute(statement, keep_payloads(self._db, connection, rows))

    def record_failure(self, queue: str, request: JobRequest, error: ClapboardError) -> None:
        """Record a request that can't be queued as a failed job with the reason, only once for each reason."""
        self.record_failures(queue, [(request, error)])

    def record_failures(self, queue: str, refused: Sequence[tuple[JobRequest, ClapboardError]]) -> None:
        """The same for several requests, in one transaction."""
        now = self._clock()
        ended = {"state": State.FAILED, "finished_at": now, "attempts": 1}
        rows = {
            (*request.subject, _reason(error)): self._row(queue, request, now)
            | ended
            | {"error_code": error.code, "error": _reason(error)}
            for request, error in refused
        }
        same = [column == bindparam(f"of_{column.name}") for column in (*_SUBJECT, jobs.c.error)]
        subjects = [{f"of_{c.name}": row[c.name] for c in (*_SUBJECT, jobs.c.error)} for row in rows.values()]
        if rows:
            with self._db.write() as connection:
                # What was there is deleted, so that this becomes the newest job.
                connection.execute(delete(jobs).where(*same, jobs.c.state == State.FAILED), subjects)
                if remaining := remembered(connection, list(rows.values())):
                    connection.execute(jobs.insert(), keep_payloads(self._db, connection, remaining))

    def claim(
        self, worker: str, queue: str, limit: int, *, together: str = "", encoders: Collection[str] | None = None
    ) -> list[Job]:
        """Claim up to `limit` of the queue's oldest jobs for this worker.

        With `together`, only jobs of that kind are claimed several at once. A job that was tried before is always
        claimed alone. With `encoders`, only jobs for one of them are claimed, see `claimable`.
        """
        now = self._clock()
        with self._db.write() as connection:
            rows = _oldest(connection, queue, limit, encoders, now)
            if not rows:
                return []
            groupable = [row.id for row in rows if row.attempts == 0 and row.kind == (together or row.kind)]
            chosen = groupable if rows[0].id in groupable else [rows[0].id]
            claimed = connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(chosen))
                .values(
                    state=State.RUNNING,
                    worker=worker,
                    attempts=jobs.c.attempts + 1,
                    started_at=now,
                    heartbeat_at=now,
                    not_before=_NOT_ASKED_AGAIN,
                )
                .returning(*jobs.c)
            ).all()
            payloads = with_audio(connection, [row.payload for row in claimed])
        in_full = [replace(job_of(row), payload=payload) for row, payload in zip(claimed, payloads, strict=True)]
        return sorted(in_full, key=lambda job: job.id)

    def heartbeat(self, worker: str) -> None:
        """Renew the heartbeat of the worker's running jobs."""
        running = select(jobs.c.id).where(jobs.c.worker == worker, IS_RUNNING)
        with self._db.write() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(running.with_for_update(skip_locked=True)))
                .values(heartbeat_at=self._clock())
            )

    def finish(self, connection: Connection, job: Job, outcome: str | None = None) -> bool | None:
        """End the job as done in the caller's transaction. Returns whether its result has to be pushed.

        `outcome` describes the result in words. Returns None if the job is no longer this worker's, because its
        heartbeat had stopped; the caller then discards its work.
        """
        return connection.scalar(
            update(jobs)
            .where(_is_still_ours(job))
            .values(state=State.DONE, finished_at=self._clock(), error=outcome or None, error_code=None)
            .returning(jobs.c.push)
        )

    def done(self, job: Job, outcome: str | None = None) -> None:
        """End a job that makes no prediction as done; `outcome` describes the result in words."""
        with self._db.write() as connection:
            self.finish(connection, job, outcome)

    def report(self, job: Job, progress: str) -> None:
        """Store a running job's progress, in words."""
        with self._db.write() as connection:
            connection.execute(update(jobs).where(_is_still_ours(job)).values(progress=progress))

    def asked_again(self, job: Job) -> bool:
        """Whether the job was requested again since it was claimed, perhaps for something that it missed."""
        with self._db.read() as connection:
            not_before = connection.scalar(select(jobs.c.not_before).where(jobs.c.id == job.id))
        return not_before is not None and not_before > _NOT_ASKED_AGAIN

    def put_off(self, job: Job, delay_s: float, progress: str) -> None:
        """Queue a running job again, to be continued in `delay_s`. This attempt doesn't count."""
        later = {"state": State.QUEUED, "worker": None, "heartbeat_at": None, "progress": progress}
        with self._db.write() as connection:
            connection.execute(
                update(jobs)
                .where(_is_still_ours(job))
                .values(later | {"attempts": job.attempts - 1, "not_before": self._clock() + delay_s})
            )

    def fail(self, job: Job, error: ClapboardError) -> State:
        """End the job as failed with its reason, or queue it again if that may help. Returns its new state."""
        again = error.retryable and job.attempts < self._max_attempts
        now = self._clock()
        values: dict[str, Any] = {"error_code": error.code, "error": _reason(error), "heartbeat_at": None}
        if again:
            values |= {"state": State.QUEUED, "worker": None, "not_before": now + RETRY_DELAY_S * 2**job.attempts}
        else:
            values |= {"state": State.FAILED, "finished_at": now}
        with self._db.write() as connection:
            connection.execute(update(jobs).where(_is_still_ours(job)).values(values))
        return State(values["state"])

    def requeue_lost(self, lease_s: float) -> set[str]:
        """Queue every running job without a heartbeat for `lease_s` again. Returns the queues of these jobs.

        A job that lost its worker `max_attempts` times has failed.
        """
        now = self._clock()
        without_heartbeat = select(jobs.c.id).where(IS_RUNNING, jobs.c.heartbeat_at < now - lease_s)
        reason = "Each worker that tried this job was lost: look at their logs and at the machine's memory."
        queues: set[str] = set()
        with self._db.write() as connection:
            for ids in in_chunks(connection.scalars(without_heartbeat.with_for_update(skip_locked=True)).all()):
                lost = jobs.c.id.in_(ids) & (jobs.c.state == State.RUNNING)
                given_up = connection.execute(
                    update(jobs)
                    .where(lost, jobs.c.attempts >= self._max_attempts)
                    .values(state=State.FAILED, finished_at=now, error_code="worker_lost", error=reason)
                    .returning(jobs.c.payload)
                )
                payloads = [payload for (payload,) in given_up if "uri_key" in payload]
                killers = {payload["uri_key"]: ("worker_lost", False) for payload in payloads}
                self._failures.put_within(connection, killers)
                requeued = update(jobs).where(lost).values(state=State.QUEUED, worker=None)
                queues |= set(connection.scalars(requeued.returning(jobs.c.queue)))
        return queues

    def owe_push(self, project: int, tasks: Sequence[int], model_version: str) -> None:
        """Make the results of the tasks' open jobs be pushed when they are done."""
        of_version = (jobs.c.project == project) & (jobs.c.model_version == model_version)
        with self._db.write() as connection:
            for chunk in in_chunks(sorted(tasks)):
                in_order = (
                    select(jobs.c.id)
                    .where(of_version, jobs.c.task.in_(chunk), jobs.c.state.in_(OPEN))
                    .order_by(jobs.c.kind, jobs.c.task)
                )
                for ids in in_chunks(connection.scalars(in_order.with_for_update()).all()):
                    connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(push=True))

    def _add_batch(
        self, connection: Connection, queue: str, requests: Sequence[JobRequest], delay_s: float | None
    ) -> dict[tuple[str, int, int, str], int]:
        """Insert requests of different subjects, or join their open jobs, in one statement. Returns ids by subject."""
        now = self._clock()
        statement = self._db.insert(jobs)
        new = statement.excluded
        changes = {"push": jobs.c.push | new.push, "payload": new.payload, "encoder": new.encoder}
        if queue == "interactive":
            changes["queue"] = new.queue
        not_before: list[tuple[Any, Any]] = [(jobs.c.state == State.RUNNING, now)]
        if delay_s is not None:
            not_before.append((jobs.c.not_before > now, now + delay_s))
        changes["not_before"] = case(*not_before, else_=jobs.c.not_before)
        statement = statement.on_conflict_do_update(index_elements=_SUBJECT, index_where=_IS_OPEN, set_=changes)
        remaining = remembered(connection, [self._row(queue, request, now) for request in requests])
        if not remaining:
            return {}
        remaining = keep_payloads(self._db, connection, remaining)
        rows = connection.execute(statement.returning(jobs.c.id, *_SUBJECT), remaining)
        return {tuple(subject): job_id for job_id, *subject in rows}

    def _row(self, queue: str, request: JobRequest, now: float) -> dict[str, Any]:
        return {
            "queue": queue,
            "kind": request.kind,
            "project": request.project,
            "task": request.task,
            "model_version": request.model_version,
            "payload": dict(request.payload),
            "encoder": f"{self._model} {request.encoder}".strip() if self._model else "",
            "push": request.push,
            "state": State.QUEUED,
            "attempts": 0,
            "not_before": now + request.delay_s if request.delay_s else 0.0,
            "created_at": now,
        }


# A running job's `not_before` has no other use than to mark that the job was requested again.
_NOT_ASKED_AGAIN = 0.0

_SUBJECT = [jobs.c.kind, jobs.c.project, jobs.c.task, jobs.c.model_version]

# Spelt as in the index, which a database recognises only without parameters.
_IS_OPEN = text("state IN ('queued', 'running')")


def _batches(requests: Sequence[JobRequest]) -> Iterator[tuple[float | None, list[JobRequest]]]:
    """The requests in batches of one delay and of different subjects, each batch sorted by subject.

    Every writer locks several rows in that order, so that there are no deadlocks.
    """
    rounds: dict[int, list[JobRequest]] = defaultdict(list)
    seen: Counter[tuple[str, int, int, str]] = Counter()
    for request in requests:
        rounds[seen[request.subject]].append(request)
        seen[request.subject] += 1
    for distinct in rounds.values():
        in_order = sorted(distinct, key=lambda request: request.subject)
        for delay_s, batch in itertools.groupby(in_order, key=lambda request: request.delay_s):
            yield delay_s, list(batch)


def _oldest(
    connection: Connection, queue: str, limit: int, encoders: Collection[str] | None, now: float
) -> Sequence[Any]:
    """Lock the queue's oldest jobs that are due and for one of the encoders, at most `limit`, by ascending id.

    Each encoder has a query of its own, because only in one encoder's jobs an index has the order of ids.
    """
    if encoders is None:
        queued = select(job_tallies.c.encoder).where(job_tallies.c.queue == queue, job_tallies.c.state == State.QUEUED)
        encoders = sorted(set(connection.scalars(queued)))
    parameters = {"of_queue": queue, "now": now, "most": limit}
    rows = [row for name in encoders for row in connection.execute(_OLDEST, parameters | {"of_encoder": name})]
    return sorted(rows, key=lambda row: row.id)[:limit]


_OLDEST = (
    select(jobs.c.id, jobs.c.kind, jobs.c.attempts)
    .where(IS_QUEUED, jobs.c.queue == bindparam("of_queue"), jobs.c.encoder == bindparam("of_encoder"))
    .where(jobs.c.not_before <= bindparam("now"))
    .order_by(jobs.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)


def _same_subject(request: JobRequest) -> Any:
    kind, project, task, model_version = request.subject
    return and_(
        jobs.c.kind == kind, jobs.c.project == project, jobs.c.task == task, jobs.c.model_version == model_version
    )


def _is_still_ours(job: Job) -> Any:
    """The condition that the job is still running in the attempt that this worker claimed."""
    return and_(
        jobs.c.id == job.id,
        jobs.c.state == State.RUNNING,
        jobs.c.worker == job.worker,
        jobs.c.attempts == job.attempts,
    )


def _reason(error: ClapboardError) -> str:
    """The error's sentence without characters that databases can't store; file names may have any."""
    return str(error).encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
