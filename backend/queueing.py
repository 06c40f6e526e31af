"""Jobs for tasks that have no prediction yet, and which of them are worth waiting for.

A task that is opened shouldn't wait for a prediction that won't come soon. Those that aren't waited for are pushed.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

from backend.task_batch import AdmittedTasks
from clapboard.installation.public_address import PublicAddress
from clapboard.project.prelabel import predict_request
from clapboard.queue.celery_app import INTERACTIVE, Waker
from clapboard.sources import AudioSources
from clapboard.store import Store


@dataclass(frozen=True)
class _Plan:
    """What to do with the tasks that lack a prediction."""

    awaited: Set[int]  # queue them and wait
    unattended: Set[int]  # queue them to be pushed: no worker, an earlier failure, or a host out of reach
    failed: Set[int]  # don't try them: they failed a moment ago


@dataclass(frozen=True)
class QueuedJobs:
    """Ids of a request's jobs."""

    awaited: list[int] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)  # they may end after the answer, and are pushed then


class TaskQueue:
    """Queues a request's tasks on the interactive queue."""

    def __init__(self, store: Store, sources: AudioSources, public_address: PublicAddress, waker: Waker) -> None:
        self._store = store
        self._sources = sources
        self._public_address = public_address
        self._waker = waker

    def queue(self, admitted: AdmittedTasks, task_ids: Set[int], *, has_worker: bool) -> QueuedJobs:
        """Queue the tasks; `has_worker` says whether a worker is there to predict them."""
        if not task_ids:
            return QueuedJobs()
        request = admitted.request
        plan = self._plan(admitted, task_ids, has_worker=has_worker)
        retries = self._store.jobs.open_of(request.project, plan.failed, request.model_version) if plan.failed else []
        self._add_jobs(admitted, plan.unattended, push=True)
        awaited = self._add_jobs(admitted, plan.awaited, push=False)
        return QueuedJobs(awaited, retries + awaited)

    def _plan(self, admitted: AdmittedTasks, task_ids: Set[int], *, has_worker: bool) -> _Plan:
        """Sort the tasks by what is known of their audio and of the host that it lies on.

        Audio that failed before is tried again at once, without a wait, if somebody asked for several tasks on purpose.
        """
        keys = {task_id: admitted.uri_keys[task_id] for task_id in task_ids}
        hosts = {task_id: self._sources.place(admitted.known_tasks[task_id].uri) for task_id in task_ids}
        failures = self._store.audio_failures.of({*keys.values(), *hosts.values()} - {""})
        recent = {subject for subject, failure in failures.items() if failure.is_recent}
        failed = {task_id for task_id in task_ids if not admitted.request.is_for_several and keys[task_id] in recent}
        unattended = {
            task_id
            for task_id in task_ids - failed
            if not has_worker or keys[task_id] in failures or hosts[task_id] in recent
        }
        return _Plan(task_ids - failed - unattended, unattended, failed)

    def _add_jobs(self, admitted: AdmittedTasks, task_ids: Set[int], *, push: bool) -> list[int]:
        """Add a job for each task, and wake the workers; the jobs' ids."""
        if not task_ids:
            return []
        request = admitted.request
        delay_s = 0.0 if request.is_for_several else None  # None: a job that failed waits for its next try
        self._public_address.store()  # before a worker may need it
        self._store.catalog.put_label_space(request.served.space_id, request.label_config)
        jobs = self._store.jobs.add(
            INTERACTIVE,
            [
                replace(predict_request(request.project, task, request.served, push=push), delay_s=delay_s)
                for task_id, task in admitted.known_tasks.items()
                if task_id in task_ids
            ],
        )
        self._waker.wake(INTERACTIVE)
        return jobs
