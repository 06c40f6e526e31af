"""`/predict`: Label Studio's tasks → predictions, from the store at once, from the workers within a bound.

A request goes through these steps, each a function of what the one before returned:

    read → admit → look up → score → queue → wait → answer

What isn't ready when the wait ends is answered with `[]`, the legal «not yet», and pushed through Label Studio's API
once it is. `clapboard.store.predictions` says why each prediction arrives exactly once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.embedded_tasks import score_embedded
from backend.label_spaces import label_space_of
from backend.polling import pause_s
from backend.queueing import QueuedJobs, TaskQueue
from backend.served_versions import ServedVersions
from backend.task_batch import AdmittedTasks, TaskRequest, admit_tasks
from backend.wire import project_id
from clapboard.errors import RequestError
from clapboard.installation.public_address import PublicAddress
from clapboard.project.known_tasks import TaskReader, embedded
from clapboard.queue.celery_app import INTERACTIVE, Waker
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.predictions import TakenPrediction

_STORE_PATIENCE_S = 5.0  # at least, while others write: they mostly take milliseconds


@dataclass(frozen=True)
class PredictAnswer:
    """The answer to `/predict`: one entry per task, each a prediction or the empty list."""

    model_version: str  # its name in the answer
    predictions: list[TakenPrediction | None]

    @property
    def results(self) -> list[dict[str, Any] | list[Any]]:
        """The entries."""
        return [prediction.as_json() if prediction else [] for prediction in self.predictions]

    @property
    def num_empty(self) -> int:
        """How many entries are empty."""
        return self.predictions.count(None)

    def to_json(self) -> bytes:
        """The answer's body. Stored predictions are copied into it without being parsed."""
        entries = ",".join(prediction.as_text() if prediction else "[]" for prediction in self.predictions)
        return f'{{"results":[{entries}],"model_version":{json.dumps(self.model_version)}}}'.encode()


@dataclass(frozen=True)
class OpenRequest:
    """A request that waits for its jobs."""

    admitted: AdmittedTasks
    jobs: QueuedJobs

    @property
    def model_version(self) -> str:
        """The version that makes every prediction in the answer."""
        return self.admitted.request.model_version


class PredictService:
    """The steps of `/predict`. Threads may share it; it remembers nothing of a request."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        versions: ServedVersions,
        public_address: PublicAddress,
        waker: Waker,
    ) -> None:
        self.wait_s = settings.predict_wait_s
        self._patience_s = max(self.wait_s, _STORE_PATIENCE_S)
        self._settings = settings
        self._store = store
        self._versions = versions
        self._sources = AudioSources(settings, public_address=public_address)
        self._queue = TaskQueue(store, self._sources, public_address, waker)

    def open(
        self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None
    ) -> PredictAnswer | OpenRequest:
        """The answer, if all predictions are stored; else the request, with what is missing scored or queued.

        Raises `RequestError`, `LabelConfigError`, `NoWorkerError`, and `StoreError` if others hold the store too long.
        """
        with self._store.database.hurried(self._patience_s):
            request = self._read(tasks, label_config, project)
            admitted = self._in_its_half(self._admit(request))
            if stored := self._answer_if_stored(admitted):
                return stored
            missing = self._look_up(admitted)
            missing -= score_embedded(self._store, admitted, missing)
            has_worker = bool(missing) and self._versions.has_worker_for(request.served.encoder)
            return OpenRequest(admitted, self._queue.queue(admitted, missing, has_worker=has_worker))

    def is_ready(self, request: OpenRequest) -> bool:
        """Whether none of the awaited jobs can end soon: all have ended, or failed and wait for another try."""
        if request.jobs.awaited:
            request.jobs.awaited[:] = self._store.jobs.awaited_ids(request.jobs.awaited)
        return not request.jobs.awaited

    def finish(self, request: OpenRequest) -> PredictAnswer:
        """The answer as it stands now. What it lacks and is still being computed will be pushed."""
        with self._store.database.hurried(self._patience_s):
            self._push_what_is_open(request)
            return _answer(request.admitted, self._take(request.admitted))

    def abandon(self, request: OpenRequest) -> PredictAnswer:
        """An answer that nobody reads any more, and so without predictions: those to come will be pushed."""
        self._push_what_is_open(request)
        return _answer(request.admitted, {})

    def predict(self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None) -> PredictAnswer:
        """All the steps in this thread, waiting at most `wait_s`. Raises what `open` does."""
        request = self.open(tasks, label_config, project)
        if isinstance(request, PredictAnswer):
            return request
        began_at = request.admitted.request.began_at
        while not self.is_ready(request) and (waited_s := self._store.clock() - began_at) < self.wait_s:
            time.sleep(pause_s(waited_s))
        return self.finish(request)

    def _read(self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None) -> TaskRequest:
        for place, task in enumerate(tasks):
            if not isinstance(task, Mapping):
                raise RequestError(f"The request is malformed: body.tasks.{place}: Input should be a valid dictionary.")
        label_space = label_space_of(label_config)
        self._versions.refresh()
        number = project_id(project)
        served = self._versions.serving(number, label_space)
        return TaskRequest(
            tasks,
            number,
            label_config,
            label_space,
            served,
            self._store.clock(),
            self._versions.answered_as(number, served),
        )

    def _admit(self, request: TaskRequest) -> AdmittedTasks:
        connected = self._versions.connected_project(request.project)
        test_share = connected.test_share if connected else 0.0
        admitted = admit_tasks(request, TaskReader(self._settings, self._sources, request.project, test_share))
        self._store.tasks.put(request.project, admitted.held_out)
        self._store.jobs.record_failures(INTERACTIVE, admitted.refusals)
        return admitted

    def _in_its_half(self, admitted: AdmittedTasks) -> AdmittedTasks:
        """The request of a task that somebody opens, for the candidate on trial if the task is in its half."""
        request = admitted.request
        arm = self._versions.canary(request.project, request.label_space)
        if arm is None or request.is_for_several:
            return admitted
        for task_id, known_task in admitted.known_tasks.items():
            if not arm.has(task_id, request.served.shown_as):
                return admitted
            if not embedded(self._store, [known_task], arm.serving.encoder):
                return admitted
        return replace(admitted, request=replace(request, served=arm.serving))

    def _answer_if_stored(self, admitted: AdmittedTasks) -> PredictAnswer | None:
        taken = self._take(admitted, all_or_none=True)
        return _answer(admitted, taken) if len(taken) == len(admitted.known_tasks) else None

    def _look_up(self, admitted: AdmittedTasks) -> set[int]:
        """Ids of the tasks without a stored prediction. The store gets to know those of a connected project."""
        request = admitted.request
        stored = self._store.predictions.cached(request.project, admitted.uri_keys, request.model_version)
        missing = admitted.known_tasks.keys() - stored
        if self._versions.connected_project(request.project):
            known_tasks = [admitted.known_tasks[task_id] for task_id in missing if task_id > 0]
            self._store.tasks.put(request.project, known_tasks)
        return missing

    def _take(self, admitted: AdmittedTasks, *, all_or_none: bool = False) -> dict[int, TakenPrediction]:
        request = admitted.request
        return self._store.predictions.take_for_answer(
            request.project,
            admitted.uri_keys,
            request.model_version,
            since=request.began_at,
            all_or_none=all_or_none,
            own_name=request.is_asked_anew,
        )

    def _push_what_is_open(self, request: OpenRequest) -> None:
        """Have the results of jobs that haven't ended pushed."""
        if request.jobs.unanswered and self._store.jobs.open_ids(request.jobs.unanswered):
            admitted = request.admitted
            task_ids = [task_id for task_id in admitted.known_tasks if task_id > 0]  # Label Studio has no others
            self._store.jobs.owe_push(admitted.request.project, task_ids, request.model_version)


def _answer(admitted: AdmittedTasks, taken: Mapping[int, TakenPrediction]) -> PredictAnswer:
    """One entry per task. A task named twice gets its prediction once, because Label Studio stores every entry."""
    left = dict(taken)
    entries = [None if task_id is None else left.pop(task_id, None) for task_id in admitted.task_ids]
    return PredictAnswer(admitted.request.answered_as, entries)
