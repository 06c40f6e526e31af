"""Jobs about a whole project: each is run, put off, or failed; one at a time where they change the project."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping

from clapboard.errors import ClapboardError, ProjectBusy, SettingsError
from clapboard.logs import about
from clapboard.project.lock import ProjectLocks
from clapboard.store import Store
from clapboard.store.jobs import Job, State
from workers.job_queue import JobQueue
from workers.put_off import PutOff
from workers.unexpected import unexpected_error

RunJob = Callable[[Job], str]
"""Runs a job; returns a sentence on what came of it. Raises `PutOff` or a `ClapboardError`."""

LOCKED_S = 0.5
"""How long a job is put off while another one changes the project."""

_CHANGING = frozenset({"align", "canary", "learn", "promote", "prune", "sweep", "sync"})
"""Kinds of jobs of which a project has one at a time."""

_LOOKING = frozenset({"align", "sweep", "sync", "tabs"})
"""Kinds of jobs that act on what they see, and so have to look again if they were asked for while they ran."""

log = logging.getLogger(__name__)


class Ending(enum.StrEnum):
    """How one try of a job ended."""

    DONE = "done"
    FAILED = "failed"
    RETRIED = "retried"  # it failed, and is queued again
    PUT_OFF = "put_off"  # it has come as far as it can for now


ENDINGS = {State.DONE: Ending.DONE, State.FAILED: Ending.FAILED, State.QUEUED: Ending.RETRIED}
"""What a job's state says of the try that has just ended."""


class ProjectJobs:
    """Runs all jobs but `predict`. Threads share it."""

    def __init__(self, store: Store, queue: JobQueue, locks: ProjectLocks, kinds: Mapping[str, RunJob]) -> None:
        """`kinds` is how to run a job of each kind."""
        self._store = store
        self._queue = queue
        self._locks = locks
        self._kinds = kinds

    def run(self, job: Job) -> Ending:
        """End the job, or put it off."""
        newest_before = self._newest(job)
        with about(**job.subject):
            ending = self._try(job)
        # Events and requests that arrived during the run joined this job but may have been missed, so queue another.
        if ending is not Ending.PUT_OFF and (self._newest(job) != newest_before or self._is_asked_again(job)):
            self._queue.add_for_project(job.queue, job.kind, job.project)
        return ending

    def _is_asked_again(self, job: Job) -> bool:
        return job.kind in _LOOKING and self._store.jobs.asked_again(job)

    def _newest(self, job: Job) -> int | str:
        """The newest of what the job acts upon: the last event, or the version that serves."""
        if job.kind in ("prelabel", "learn"):
            return self._store.inbox.last_id(job.project)
        promoted = self._store.versions.promoted(job.project) if job.kind == "prune" else None
        return promoted.model_version if promoted else ""

    def _try(self, job: Job) -> Ending:
        try:
            outcome = self._run(job)
            self._store.jobs.done(job, outcome)
            log.info("%s: %s", job.kind, outcome)
        except PutOff as put_off:
            self._store.jobs.put_off(job, put_off.delay_s, str(put_off))
            log.debug("%s is put off: %s", job.kind, put_off)
            return Ending.PUT_OFF
        except ClapboardError as error:
            log.warning("%s failed: %s", job.kind, error)
            return ENDINGS[self._store.jobs.fail(job, error)]
        except Exception as error:
            return ENDINGS[self._store.jobs.fail(job, unexpected_error(job.kind, error))]
        return Ending.DONE

    def _run(self, job: Job) -> str:
        """What came of the job. Raises `PutOff` while another job, on any machine, changes the project."""
        if job.kind not in self._kinds:
            raise SettingsError(f"Job kind {job.kind} is unknown here: run workers of one release of Clapboard.")
        run = self._kinds[job.kind]
        if job.kind not in _CHANGING:
            return run(job)
        try:
            with self._locks.hold(job.project):
                return run(job)
        except ProjectBusy as busy:
            raise PutOff(LOCKED_S, str(busy)) from None
