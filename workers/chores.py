"""Jobs about a whole project: learn from it, search it, bring versions into service, keep Label Studio in step."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from typing import Any

from clapboard.errors import ClapboardError, LabelStudioError, SettingsError
from clapboard.feedback.sync import reconcile
from clapboard.jobs import LEARN, Bell
from clapboard.known_tasks import remember_tasks
from clapboard.label_studio.annotations import AnnotatedTask
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.connect import align
from clapboard.labels import parse_label_config
from clapboard.logs import about
from clapboard.pace import Pace
from clapboard.prelabel import Prelabeller
from clapboard.serving import find_serving
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest, State
from workers.finetune import Finetuner
from workers.pipeline import unforeseen
from workers.promote import Promoter
from workers.refit import Refitter
from workers.search import Searcher
from workers.triggers import consider_training

REST = 2.0
"""A project's rollouts rest so many times as long as the last one took: Label Studio has people to serve too."""

PRUNE_PATIENCE = 20
"""Pruning waits so many times `CLAPBOARD_PRUNE_QUIET_S` for people to pause, then it is done while they annotate."""

EMBEDDING_S = 5.0
"""How long until the next look while tasks are being embedded."""

log = logging.getLogger(__name__)


class Ending(enum.StrEnum):
    """How one try of a job ended."""

    DONE = "done"
    FAILED = "failed"
    RETRIED = "retried"  # it failed, and is queued again
    PUT_OFF = "put_off"  # it has come as far as it can for now


ENDINGS = {State.DONE: Ending.DONE, State.FAILED: Ending.FAILED, State.QUEUED: Ending.RETRIED}
"""What a job's state says of the try that has just ended."""


class Later(Exception):
    """A job that has come as far as it can for now."""

    def __init__(self, delay_s: float, progress: str) -> None:
        super().__init__(progress)
        self.delay_s = delay_s


class Chores:
    """Runs all jobs but `predict`."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        client: LabelStudioClient | None,
        bell: Bell,
        refitter: Refitter,
        promoter: Promoter,
        finetuner: Finetuner,
        searcher: Searcher,
    ) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._bell = bell
        self._refitter = refitter
        self._promoter = promoter
        self._finetuner = finetuner
        self._sources = AudioSources(settings)
        self._rests_until: dict[int, float] = {}
        self._synced_until: dict[int, float] = {}  # a worker's first look is at everything
        self._kinds: Mapping[str, Callable[[Job], str]] = {
            "align": self._align,
            "learn": self._learn,
            "prelabel": self._prelabel,
            "promote": self._promote,
            "prune": self._prune,
            "search": searcher.run,
            "sync": self._sync,
            "train": self._train,
        }

    def run(self, job: Job) -> Ending:
        """End the job, or put it off."""
        newest = self._store.inbox.last_id(job.project)
        with about(**job.subject):
            ending = self._try(job)
        # What came while it ran was maybe too late for it, and whoever asked for a job then got this one.
        if job.kind in ("prelabel", "learn") and self._store.inbox.last_id(job.project) > newest:
            self._ask(job.queue, job.kind, job.project)
        return ending

    def _try(self, job: Job) -> Ending:
        try:
            if job.kind not in self._kinds:
                raise SettingsError(f"Job kind {job.kind} is unknown here: run workers of one release of Clapboard.")
            outcome = self._kinds[job.kind](job)
            self._store.jobs.done(job, outcome)
            log.info("%s: %s", job.kind, outcome)
        except Later as later:
            self._store.jobs.put_off(job, later.delay_s, str(later))
            log.debug("%s is put off: %s", job.kind, later)
            return Ending.PUT_OFF
        except ClapboardError as error:
            log.warning("%s failed: %s", job.kind, error)
            return ENDINGS[self._store.jobs.fail(job, error)]
        except Exception as error:
            return ENDINGS[self._store.jobs.fail(job, unforeseen(job.kind, error))]
        return Ending.DONE

    def _ask(self, queue: str, kind: str, project: int) -> None:
        self._store.jobs.add(queue, [JobRequest(kind, project)])
        self._bell.ring(queue)

    def _learn(self, job: Job) -> str:
        began_at = self._store.clock()
        if (rest_s := self._rests_until.get(job.project, 0.0) - began_at) > 0:
            raise Later(rest_s, "Label Studio rests from the last change")
        refitted = self._refitter.run(job.project, on_page=self._rolling(job).advance)
        consider_training(self._settings, self._store, self._bell, job.project)
        if refitted.num_waiting:
            raise Later(1.0, f"{refitted.num_waiting} tasks are still to be embedded or pushed")
        if refitted.changed:
            now = self._store.clock()
            self._rests_until[job.project] = now + REST * (now - began_at)
        if refitted.num_missing:  # their labels, and what they add to the pool, are learnt from when they are there
            raise Later(EMBEDDING_S, f"{refitted}; {refitted.num_missing} tasks are still to be embedded")
        return str(refitted)

    def _promote(self, job: Job) -> str:
        promoted = self._promoter.run(job.project, job.model_version, on_page=self._rolling(job).advance)
        if promoted.num_waiting:
            raise Later(1.0, f"{promoted.num_waiting} tasks are still to be embedded or pushed")
        self._ask(LEARN, "learn", job.project)
        return f"{job.model_version} is promoted; {promoted.num_predicted} tasks are predicted anew."

    def _pace(self, job: Job, what: str, total: int | None) -> Pace:
        """What tells how far the job is to whoever looks."""
        return Pace(what, total, lambda said: self._store.jobs.report(job, said), self._store.clock)

    def _rolling(self, job: Job) -> Pace:
        """The same, for what goes through all tasks but those set aside."""
        num_known, num_set_aside = self._store.tasks.count(job.project)
        return self._pace(job, "tasks gone through", num_known - num_set_aside)

    def _prune(self, job: Job) -> str:
        # Deleting predictions is the slowest thing that Label Studio does; on SQLite, others get errors meanwhile.
        quiet_s, now = self._settings.prune_quiet_s, self._store.clock()
        pause_s = self._store.inbox.last_said_at(job.project) + quiet_s - now
        if pause_s > 0 and now < job.created_at + PRUNE_PATIENCE * quiet_s:
            raise Later(pause_s, "somebody is annotating")
        self._store.jobs.report(job, "taking replaced versions out of Label Studio")
        return f"{self._promoter.prune(job.project)} versions were taken out of Label Studio."

    def _train(self, job: Job) -> str:
        outcome = self._finetuner.run(job)
        if outcome is None:
            raise Later(0.0, "the worker stopped; the next one goes on from the last epoch")
        if outcome.promote:
            self._store.jobs.add(LEARN, [JobRequest("promote", job.project, model_version=outcome.model_version)])
            self._bell.ring(LEARN)
        return outcome.reason

    def _sync(self, job: Job) -> str:
        client, since = self._label_studio(), self._synced_until.get(job.project)
        total = client.num_annotations(job.project) if since is None else None  # else nobody knows how many changed
        pace = self._pace(job, "annotations read", total)
        annotated: list[dict[str, Any]] = []

        def note(task: AnnotatedTask) -> None:
            annotated.append({"id": task.id, "data": task.data})
            pace.advance(len(task.annotations))

        found = reconcile(self._store, client, job.project, changed_since=since, on_task=note)
        remember_tasks(self._settings, self._store, self._sources, job.project, {"task": annotated})
        self._synced_until[job.project] = found.until
        self._ask(LEARN, "learn", job.project)
        return str(found)

    def _align(self, job: Job) -> str:
        client = self._label_studio()
        label_space = parse_label_config(self._store.catalog.project(job.project).label_config)
        version = find_serving(self._store, self._settings.model, job.project, label_space).model_version
        align(client, self._settings, job.project, version)
        return f"Label Studio's versions are {version}."

    def _prelabel(self, job: Job) -> str:
        client = self._label_studio()
        pace = self._pace(job, "tasks looked at", client.project(job.project).num_tasks)
        prelabeller = Prelabeller(self._settings, self._store, client, self._bell)
        found = prelabeller.run(job.project, on_page=lambda so_far: pace.reach(so_far.num_tasks))
        return f"{found.num_queued} tasks queued, {found.num_present} had their prediction."

    def _label_studio(self) -> LabelStudioClient:
        if self._client is None:
            raise LabelStudioError("LABEL_STUDIO_API_KEY is not set: Label Studio's API can't be used without it.")
        return self._client
