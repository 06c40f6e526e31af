"""A whole project through the batch queue. What Label Studio holds decides what is missing, so it can be run again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from clapboard import prediction
from clapboard.errors import LabelConfigError, NoWorkerError, SourceError
from clapboard.jobs import BATCH, Bell, PredictPayload
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Task
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import JobRequest

_TASKS_AT_ONCE = 1000


@dataclass
class Prelabelled:
    """What `prelabel` found and queued."""

    model_version: str
    num_tasks: int = 0
    num_present: int = 0  # Label Studio holds this version's prediction already
    num_cached: int = 0  # computed before, only to be pushed
    num_queued: int = 0
    num_refused: int = 0  # the task names no audio that can be fetched


class Prelabeller:
    """Queues what a project's tasks lack."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudioClient, bell: Bell) -> None:
        self._store = store
        self._client = client
        self._bell = bell
        self._model = settings.model
        self._sources = AudioSources(settings)

    def run(self, project_id: int, *, on_page: Callable[[Prelabelled], None] = lambda _: None) -> Prelabelled:
        """Queue every task that lacks a prediction of the project's model version, to be pushed when it is there.

        Memory doesn't grow with the number of tasks. Raises `LabelConfigError`, `NoWorkerError`, `LabelStudioError`.
        """
        project = self._client.project(project_id)
        label_space = parse_label_config(project.label_config)
        if not label_space.predicted:
            raise LabelConfigError(f"Project {project_id}: {label_space.controls[0].why_not_predicted}")
        encoder = self._store.catalog.encoder(self._model)
        if encoder is None:
            raise NoWorkerError(f"No worker has loaded the model {self._model} yet: start one with `clapboard worker`.")
        head_id = prediction.head_id(label_space)
        self._store.catalog.put_label_space(head_id, project.label_config)
        found = Prelabelled(prediction.model_version(encoder, label_space))
        tasks = self._client.tasks(project_id)
        while page := list(itertools.islice(tasks, _TASKS_AT_ONCE)):
            self._queue_page(project_id, page, label_space, head_id, found)
            on_page(found)
        return found

    def _queue_page(
        self, project_id: int, page: list[Task], label_space: LabelSpace, head_id: str, found: Prelabelled
    ) -> None:
        version = found.model_version
        held = self._client.predictions(project_id, [task.id for task in page], version)
        present = {task for task, prediction_ids in held if prediction_ids}
        wanted: dict[int, PredictPayload] = {}
        for task in page:
            if task.id not in present:
                try:
                    uri = label_space.audio_uri(task.data)
                    wanted[task.id] = PredictPayload(uri=uri, uri_key=self._sources.key(uri), head_id=head_id)
                except SourceError as error:
                    self._store.jobs.record_failure(BATCH, JobRequest("predict", project_id, task.id, version), error)
                    found.num_refused += 1
        keys = {task: payload.uri_key for task, payload in wanted.items()}
        cached = self._store.predictions.cached(project_id, keys, version)
        owed = self._store.predictions.owe(project_id, sorted(cached), version)
        requests = [
            JobRequest("predict", project_id, task, version, payload.model_dump(), push=True)
            for task, payload in wanted.items()
            if task not in cached
        ]
        if requests:
            self._store.jobs.add(BATCH, requests)
            self._bell.ring(BATCH)
        found.num_tasks += len(page)
        found.num_present += len(present)
        found.num_cached += len(owed)
        found.num_queued += len(requests)
