"""Claims jobs from the store and runs them: predictions in batches, all other kinds one by one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence

from clapboard.errors import ClapboardError
from clapboard.logs import about
from clapboard.queue.celery_app import BATCH, INTERACTIVE, LEARN, Waker
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest, State
from workers.predict_jobs import PredictJobs
from workers.project_jobs import ENDINGS, ProjectJobs
from workers.unexpected import unexpected_error
from workers.worker_metrics import WorkerMetrics

TABS_DELAY_S = 5.0
"""How long failed tasks are gathered before Label Studio's tabs list them."""


class JobRunner:
    """Runs the jobs of one worker. Threads share it."""

    def __init__(
        self,
        store: Store,
        worker: str,
        predict_jobs: PredictJobs,
        project_jobs: ProjectJobs,
        metrics: WorkerMetrics,
        waker: Waker,
        stopping: threading.Event,
        *,
        batch_size: int,
        encoders: Collection[str],
        keeps_tabs: bool,
    ) -> None:
        """`worker` is the name that jobs are claimed under, `encoders` those that they may be for: see `claimable`.

        A batch holds at most `batch_size` predictions. With `keeps_tabs`, tasks that failed are listed in Label Studio.
        """
        self._store = store
        self._worker = worker
        self._predict_jobs = predict_jobs
        self._project_jobs = project_jobs
        self._metrics = metrics
        self._waker = waker
        self._stopping = stopping
        self._batch_size = batch_size
        self.encoders = encoders
        self._keeps_tabs = keeps_tabs
        self._dropped: deque[tuple[Sequence[Job], ClapboardError]] = deque()

    def work_off(self, queue: str) -> None:
        """Run the queue's jobs until none is left, the worker stops, or something unexpected fails."""
        while not self._stopping.is_set():
            # Project jobs are claimed one by one: another worker can take those that this one couldn't begin yet.
            limit = self._batch_size if queue in (INTERACTIVE, BATCH) else 1
            jobs = self._store.jobs.claim(self._worker, queue, limit, together="predict", encoders=self.encoders)
            if not jobs:
                return
            if len(jobs) == limit > 1:  # there may be more, which another thread or worker can take at once
                self._waker.wake(queue)
            try:
                self.run(jobs)
            except Exception as error:  # most likely the store's, so the jobs can't be given back right now
                self._dropped.append((jobs, unexpected_error("working on a batch", error)))
                return

    def run(self, jobs: Sequence[Job]) -> None:
        """End every job, and count how each ended."""
        predict = [job for job in jobs if job.kind == "predict"]
        with about(**_shared_subject(predict)):
            self._predict_jobs.run(predict)
        states = self._store.jobs.states([job.id for job in predict])
        self._list_failed({job.project for job in predict if states.get(job.id) == State.FAILED})
        for state in states.values():
            if state in ENDINGS:  # otherwise the job was lost to another worker, which runs it now
                self._metrics.count_jobs("predict", ENDINGS[state])
        for job in jobs:
            if job.kind != "predict":
                self._metrics.count_jobs(job.kind, self._project_jobs.run(job))

    def close(self) -> None:
        """Stop the threads that jobs run on. No job may be running any more."""
        self._predict_jobs.close()

    def give_back(self) -> None:
        """Queue the jobs again that were dropped while running. Raises `StoreError` while the store is still away."""
        while self._dropped:
            jobs, error = self._dropped[0]
            for job in jobs:
                self._metrics.count_jobs(job.kind, ENDINGS[self._store.jobs.fail(job, error)])
            self._dropped.popleft()

    def _list_failed(self, projects: Collection[int]) -> None:
        """Have Label Studio's tabs tell tasks that failed apart from those that are still to come."""
        connected = self._store.catalog.connected_projects().keys() & projects if self._keeps_tabs else ()
        requests = [JobRequest("tabs", project, delay_s=TABS_DELAY_S) for project in connected]
        if requests:
            self._store.jobs.add(LEARN, requests)


def _shared_subject(jobs: Sequence[Job]) -> dict[str, int | str]:
    """What all the jobs are about."""
    subjects = [job.subject.items() for job in jobs]
    return dict(set(subjects[0]).intersection(*subjects[1:])) if subjects else {}
