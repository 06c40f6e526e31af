"""The jobs that keep Clapboard and Label Studio in step: `sync`, `prelabel`, `align`, `tabs`, `reread`."""

from __future__ import annotations

import contextlib
from typing import Any

from clapboard.errors import LabelStudioError
from clapboard.installation.public_address import audio_sources
from clapboard.label_studio.annotations import AnnotatedTask
from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.plurals import counted
from clapboard.project.known_tasks import remember_tasks
from clapboard.project.prelabel import Prelabeller, predict_request
from clapboard.project.serving import Serving, find_serving
from clapboard.project.sync import reconcile
from clapboard.project.tabs import keep_tabs
from clapboard.queue.celery_app import BATCH, LEARN, Waker
from clapboard.queue.pace import Pace
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import Job
from workers.align import Aligner
from workers.job_queue import JobQueue
from workers.project_jobs import RunJob


class LabelStudioJobs:
    """Runs these jobs. It remembers up to when it has read each project's annotations."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudioClient | None, waker: Waker) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._waker = waker
        self._queue = JobQueue(store, waker)
        self._aligner = Aligner(settings, store)
        self._sources = audio_sources(settings, store)
        self._synced_until: dict[int, float] = {}  # a worker's first sync reads all annotations

    @property
    def kinds(self) -> dict[str, RunJob]:
        """How to run a job of each kind."""
        return {
            "align": self._align,
            "prelabel": self._prelabel,
            "reread": self._reread,
            "sync": self._sync,
            "tabs": self._tabs,
        }

    def _sync(self, job: Job) -> str:
        client, since = require_client(self._client), self._synced_until.get(job.project)
        num_annotations = client.num_annotations(job.project) if since is None else None  # else it can't be known
        pace = self._pace(job, "annotations read", num_annotations)
        tasks: list[dict[str, Any]] = []

        def note(task: AnnotatedTask) -> None:
            tasks.append({"id": task.id, "data": task.data})
            pace.advance(len(task.annotations))

        reconciled = reconcile(self._store, client, job.project, changed_since=since, on_task=note)
        remember_tasks(self._settings, self._store, self._sources, job.project, {"task": tasks})
        if self._store.ledger.unnamed(job.project):
            with contextlib.suppress(LabelStudioError):  # a token that may not list users does everything else
                self._store.ledger.name_annotators(client.users())
        self._synced_until[job.project] = reconciled.until
        for kind in ("learn", "align", "tabs"):
            self._queue.add_for_project(LEARN, kind, job.project)
        if self._has_new_tasks(client, job.project):
            self._queue.add_for_project(BATCH, "prelabel", job.project)
        return str(reconciled)

    def _has_new_tasks(self, client: LabelStudioClient, project: int) -> bool:
        """Whether tasks were imported whose event got lost: Label Studio sends each event once."""
        last_task = self._store.catalog.project(project).last_task
        return next(client.tasks(project, after=last_task, page_size=1), None) is not None

    def _align(self, job: Job) -> str:
        return self._aligner.run(require_client(self._client), job)

    def _tabs(self, job: Job) -> str:
        num_changed = keep_tabs(self._store, require_client(self._client), job.project)
        return f"{num_changed} tabs list other tasks now."

    def _reread(self, job: Job) -> str:
        """Have recordings read again that an earlier release may have read in part."""
        serving = self._serving(job.project)
        failed_ids = self._store.jobs.failed_tasks(job.project, serving.model_version)
        num_queued = 0
        for page in self._store.tasks.of_project(job.project):
            unread = self._store.embeddings.unread([task.uri_key for task in page])
            tasks = [task for task in page if task.uri_key in unread and task.task not in failed_ids]
            self._store.jobs.add(BATCH, [predict_request(job.project, task, serving, push=False) for task in tasks])
            num_queued += len(tasks)
        self._waker.wake(BATCH)
        return f"{num_queued} recordings are read again."

    def _prelabel(self, job: Job) -> str:
        client = require_client(self._client)
        pace = self._pace(job, "tasks looked at", client.project(job.project).num_tasks)
        prelabeller = Prelabeller(self._settings, self._store, client, self._waker)
        prelabelled = prelabeller.run(job.project, on_page=lambda so_far: pace.reach(so_far.num_tasks))
        return f"{counted(prelabelled.num_queued, 'task')} queued, {prelabelled.num_present:,} had their prediction."

    def _serving(self, project: int) -> Serving:
        label_space = parse_label_config(self._store.catalog.project(project).label_config)
        return find_serving(self._store, self._settings.model, project, label_space)

    def _pace(self, job: Job, counted_nouns: str, total: int | None) -> Pace:
        """Reports the job's progress, of which `total` is the end, where it is known."""
        return Pace(counted_nouns, total, lambda progress: self._store.jobs.report(job, progress), self._store.clock)


def require_client(client: LabelStudioClient | None) -> LabelStudioClient:
    """The client. Raises `LabelStudioError` without a token."""
    if client is None:
        raise LabelStudioError("LABEL_STUDIO_API_KEY is not set: Label Studio's API can't be used without it.")
    return client
