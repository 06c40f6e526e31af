"""The jobs that make a project's model better: `learn`, `train`, `repeat`, `canary`, `promote`, `prune`."""

from __future__ import annotations

from clapboard.installation.public_address import audio_sources
from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.plurals import counted, plural
from clapboard.project.agreement import refresh_labels
from clapboard.project.known_tasks import rekey_tasks
from clapboard.project.serving import find_serving
from clapboard.project.sync import reconcile
from clapboard.queue.celery_app import LEARN
from clapboard.queue.pace import Pace
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest
from workers.canaries import Canaries
from workers.finetuner import Finetuner
from workers.job_queue import JobQueue
from workers.label_studio_jobs import require_client
from workers.project_jobs import RunJob
from workers.promote import Promoter
from workers.pruning import Pruner
from workers.put_off import PutOff
from workers.refit import Refitter
from workers.training_triggers import queue_due_training, reason_to_skip

PRUNE_PATIENCE = 20
"""Pruning waits this many times `CLAPBOARD_PRUNE_QUIET_S` for people to pause; then it runs while they annotate."""

EMBEDDING_S = 5.0
"""How long a job is put off while tasks are being embedded."""

PUSHING_S = 1.0
"""How long a rollout is put off while its tasks are being embedded or pushed."""

_GOES_ON = "the worker stopped; the next one goes on from the last epoch"


class LearningJobs:
    """Runs these jobs. What they remember from one to the next is in the store, for the workers of all machines."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        client: LabelStudioClient | None,
        queue: JobQueue,
        refitter: Refitter,
        promoter: Promoter,
        pruner: Pruner,
        finetuner: Finetuner,
        canaries: Canaries,
    ) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._queue = queue
        self._refitter = refitter
        self._promoter = promoter
        self._pruner = pruner
        self._finetuner = finetuner
        self._canaries = canaries
        self._sources = audio_sources(settings, store)
        self._prune_due_at: dict[int, float] = {}

    @property
    def kinds(self) -> dict[str, RunJob]:
        """How to run a job of each kind."""
        return {
            "canary": self._begin_canary,
            "learn": self._learn,
            "promote": self._promote,
            "prune": self._prune,
            "repeat": self._repeat,
            "train": self._train,
        }

    def _learn(self, job: Job) -> str:
        if (rest_s := self._store.learning.rests_until(job.project) - self._store.clock()) > 0:
            raise PutOff(rest_s, "Label Studio rests from the last change")
        self._follow_channel(job.project)
        refitted = self._refitter.run(job.project, on_page=self._pace(job).advance)
        queue_due_training(self._settings, self._store, self._queue, job.project)
        if refitted.num_waiting:
            raise PutOff(PUSHING_S, f"{_still(refitted.num_waiting)} to be embedded or pushed")
        if refitted.num_missing:  # once embedded, they are learnt from: their labels, and what they add to the pool
            raise PutOff(EMBEDDING_S, f"{refitted}; {_still(refitted.num_missing)} to be embedded")
        return str(refitted)

    def _follow_channel(self, project: int) -> None:
        """If the label config names another channel than before, key the project's tasks by that one."""
        channel = parse_label_config(self._store.catalog.project(project).label_config).channel
        if self._store.learning.channel(project) != channel:
            rekey_tasks(self._store, self._sources, project, channel)
            self._store.learning.put_channel(project, channel)

    def _promote(self, job: Job) -> str:
        self._store.ledger.catch_up()
        pinned = self._store.versions.pinned(job.project)
        if pinned and pinned != job.model_version:
            return f"{job.model_version} is not promoted: somebody has chosen {pinned} since, which is pinned."
        progress = self._promoter.run(job.project, job.model_version, on_page=self._pace(job).advance)
        if progress.num_waiting:
            raise PutOff(PUSHING_S, f"{_still(progress.num_waiting)} to be embedded or pushed")
        self._queue.add_for_project(LEARN, "learn", job.project)
        return f"{job.model_version} is promoted; {counted(progress.num_predicted, 'task')} predicted anew."

    def _prune(self, job: Job) -> str:
        # Deleting predictions is the slowest thing that Label Studio does; on SQLite, others get errors meanwhile.
        quiet_s, now = self._settings.prune_quiet_s, self._store.clock()
        pause_s = self._store.inbox.last_annotated_at(job.project) + quiet_s - now
        due_at = self._prune_due_at.get(job.project, job.created_at)
        if pause_s > 0 and now < due_at + PRUNE_PATIENCE * quiet_s:
            raise PutOff(pause_s, "somebody is annotating")
        self._store.jobs.report(job, "taking replaced versions out of Label Studio")
        self._enter_lost_annotations(job.project)
        pruned = self._pruner.run(job.project)
        were = plural(pruned.num_gone, "was", "were")
        outcome = f"{counted(pruned.num_gone, 'version')} {were} taken out of Label Studio"
        if pruned.next_at is not None:
            self._prune_due_at[job.project] = pruned.next_at
            raise PutOff(pruned.next_at - now, f"{outcome}; others may still be in view")
        self._prune_due_at.pop(job.project, None)
        return f"{outcome}."

    def _enter_lost_annotations(self, project: int) -> None:
        """Enter annotations whose event got lost in the ledger: the predictions that they answered must stay."""
        client = require_client(self._client)
        if client.num_annotations(project) != self._store.annotations.count(project):
            reconcile(self._store, client, project)

    def _train(self, job: Job) -> str:
        if job.payload.get("planned"):
            self._store.ledger.catch_up()
            if reason := reason_to_skip(self._store, job.project):
                return reason
        finetuned = self._finetuner.run(job)
        if finetuned is None:
            raise PutOff(0.0, _GOES_ON)
        self._store.ledger.catch_up()
        if finetuned.promote and (pinned := self._store.versions.pinned(job.project)):
            return (
                f"{finetuned.reason} But {pinned} is pinned, so it waits: `clapboard models promote --project "
                f"{job.project} {finetuned.model_version}` brings it into service."
            )
        if finetuned.promote:
            self._queue.add(LEARN, [JobRequest("promote", job.project, model_version=finetuned.model_version)])
        elif finetuned.is_likely:
            self._queue.add(LEARN, [JobRequest("canary", job.project, model_version=finetuned.model_version)])
        label_space = parse_label_config(self._store.catalog.project(job.project).label_config)
        refresh_labels(self._store, job.project, label_space)
        left_out = self._store.labels.counts(job.project).left_out
        on_trial = "It is likely better, so it goes on trial." if finetuned.is_likely else ""
        return " ".join(filter(None, (finetuned.reason, on_trial, left_out)))

    def _begin_canary(self, job: Job) -> str:
        label_space = parse_label_config(self._store.catalog.project(job.project).label_config)
        serving = find_serving(self._store, self._settings.model, job.project, label_space)
        candidate = self._store.versions.get(job.project, job.model_version)
        begun = self._canaries.begin(job.project, candidate, label_space, serving)
        return f"{begun} {self._canaries.prepare(job.project, label_space)}".rstrip()

    def _repeat(self, job: Job) -> str:
        outcome = self._finetuner.repeat(job)
        if outcome is None:
            raise PutOff(0.0, _GOES_ON)
        return outcome

    def _pace(self, job: Job) -> Pace:
        """Reports how many of the project's tasks, those held out excepted, a rollout has gone through."""

        def num_tasks() -> int:
            num_known, num_held_out = self._store.tasks.count(job.project)
            return num_known - num_held_out

        return Pace(
            "tasks gone through", num_tasks, lambda progress: self._store.jobs.report(job, progress), self._store.clock
        )


def _still(num_tasks: int) -> str:
    return f"{counted(num_tasks, 'task')} {plural(num_tasks, 'is', 'are')} still"
