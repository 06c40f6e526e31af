"""Jobs about a whole project: keep its versions aligned, queue its new tasks, and what `train` can do so far."""

from __future__ import annotations

import logging

from clapboard.errors import ClapboardError, LabelStudioError
from clapboard.jobs import BATCH, Bell
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.connect import align
from clapboard.prelabel import Prelabeller
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest
from workers.embed import unforeseen

log = logging.getLogger(__name__)


class Chores:
    """Runs `align`, `prelabel` and `train` jobs."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudioClient | None, bell: Bell) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._bell = bell

    def run(self, job: Job) -> None:
        """End the job."""
        num_imports = self._num_imports(job.project)
        try:
            outcome = {"align": self._align, "prelabel": self._prelabel, "train": self._train}[job.kind](job)
            self._store.jobs.done(job, outcome)
        except ClapboardError as error:
            self._store.jobs.fail(job, error)
            log.warning("%s failed: %s", job.kind, error, extra={"project": job.project, "job": job.id})
        except Exception as error:
            self._store.jobs.fail(job, unforeseen(job.kind, error))
        # Tasks that came while it ran were maybe too late for its listing, and their own job was this one.
        if job.kind == "prelabel" and self._num_imports(job.project) > num_imports:
            self._store.jobs.add(BATCH, [JobRequest("prelabel", job.project)])
            self._bell.ring(BATCH)

    def _num_imports(self, project: int) -> int:
        return self._store.inbox.counts(project).get("TASKS_CREATED", 0)

    def _align(self, job: Job) -> str:
        align(self._label_studio(), self._settings, job.project, job.model_version)
        return f"Label Studio's versions are {job.model_version}."

    def _prelabel(self, job: Job) -> str:
        prelabeller = Prelabeller(self._settings, self._store, self._label_studio(), self._bell)
        found = prelabeller.run(job.project)
        return f"{found.num_queued} tasks queued, {found.num_present} had their prediction."

    def _train(self, job: Job) -> str:
        events = self._store.inbox.counts(job.project)
        num_kept = sum(count for action, count in events.items() if action.startswith("ANNOTATION"))
        return (
            f"Nothing was trained: this release doesn't finetune. The inbox keeps {num_kept} annotation events for it."
        )

    def _label_studio(self) -> LabelStudioClient:
        if self._client is None:
            raise LabelStudioError("LABEL_STUDIO_API_KEY is not set: Label Studio's API can't be used without it.")
        return self._client
