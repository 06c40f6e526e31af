"""A whole project through the batch queue. What Label Studio holds decides what is missing, so it can be run again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from clapboard.errors import LabelConfigError, NotFoundError, SourceError
from clapboard.jobs import BATCH, Bell, PredictPayload
from clapboard.known_tasks import TaskReader
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Task
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.serving import Serving, find_serving
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.tasks import KnownTask

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
    num_set_aside: int = 0  # for the test split, without a suggestion


class Prelabeller:
    """Queues what a project's tasks lack."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudioClient, bell: Bell) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._bell = bell
        self._sources = AudioSources(settings)

    def run(self, project_id: int, *, on_page: Callable[[Prelabelled], None] = lambda _: None) -> Prelabelled:
        """Queue every task that lacks a prediction of the project's model version, to be pushed when it is there.

        Memory doesn't grow with the number of tasks. Raises `LabelConfigError`, `NoWorkerError`, `LabelStudioError`.
        """
        project = self._client.project(project_id)
        label_space = parse_label_config(project.label_config)
        if not label_space.predicted:
            raise LabelConfigError(f"Project {project_id}: {label_space.controls[0].why_not_predicted}")
        served = find_serving(self._store, self._settings.model, project_id, label_space)
        self._store.catalog.put_label_space(served.space_id, project.label_config)
        found = Prelabelled(served.model_version)
        tasks = self._client.tasks(project_id)
        while page := list(itertools.islice(tasks, _TASKS_AT_ONCE)):
            self._queue_page(project_id, page, label_space, served, found)
            on_page(found)
        return found

    def _queue_page(
        self, project_id: int, page: list[Task], label_space: LabelSpace, served: Serving, found: Prelabelled
    ) -> None:
        version = found.model_version
        known = self._known(project_id, page, label_space, found)
        self._store.tasks.put(project_id, known)
        held = self._client.predictions(project_id, [task.id for task in page], version)
        present = {task for task, prediction_ids in held if prediction_ids}
        wanted = {one.task: one for one in known if one.task not in present and not one.set_aside}
        keys = {task: one.uri_key for task, one in wanted.items()}
        cached = self._store.predictions.cached(project_id, keys, version)
        owed = self._store.predictions.owe(project_id, sorted(cached), version)
        requests = [
            predict_request(project_id, one, served, push=True) for task, one in wanted.items() if task not in cached
        ]
        if requests:
            self._store.jobs.add(BATCH, requests)
            self._bell.ring(BATCH)
        found.num_tasks += len(page)
        found.num_present += len(present)
        found.num_cached += len(owed)
        found.num_queued += len(requests)
        found.num_set_aside += sum(one.set_aside for one in known)

    def _known(self, project_id: int, page: list[Task], label_space: LabelSpace, found: Prelabelled) -> list[KnownTask]:
        reader = TaskReader(self._settings, self._sources, project_id, self._test_share(project_id))
        known = []
        for task in page:
            try:
                known.append(reader.read(label_space, task.id, task.data))
            except SourceError as error:
                refused = JobRequest("predict", project_id, task.id, found.model_version)
                self._store.jobs.record_failure(BATCH, refused, error)
                found.num_refused += 1
        return known

    def _test_share(self, project_id: int) -> float:
        try:
            return self._store.catalog.project(project_id).test_share
        except NotFoundError:  # never connected: nothing was set aside
            return 0.0


def predict_request(project: int, task: KnownTask, served: Serving, *, push: bool) -> JobRequest:
    """The job that predicts the task by what serves it."""
    payload = PredictPayload(
        uri=task.uri, uri_key=task.uri_key, encoder=served.encoder.model, space_id=served.space_id, head=served.head
    )
    return JobRequest("predict", project, task.task, served.model_version, payload.model_dump(), push)
