"""Pre-labelling of a whole project. It queues only what Label Studio lacks, so it can be run again at any time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from clapboard.errors import ClapboardError, LabelConfigError, NotFoundError, SourceError
from clapboard.installation.public_address import audio_sources
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Task
from clapboard.labels.coverage import no_suggestions
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.project.display import completed_tasks
from clapboard.project.known_tasks import TaskReader, embedded
from clapboard.project.serving import Serving, find_serving, is_tuned
from clapboard.queue.celery_app import BATCH, LEARN, PredictPayload, Waker
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.job_records import number_format
from clapboard.store.jobs import JobRequest
from clapboard.store.tasks import KnownTask

_TASKS_PER_PAGE = 1000


@dataclass
class Prelabelled:
    """How many tasks a run of `prelabel` met, by what was done about them."""

    model_version: str
    num_tasks: int = 0
    num_present: int = 0  # Label Studio already has this version's prediction
    num_cached: int = 0  # predicted before, only to be pushed
    num_queued: int = 0
    num_refused: int = 0  # their data name no audio that can be fetched
    num_complete: int = 0  # annotated already, so that nobody needs a suggestion any more
    num_held_out: int = 0  # in the test split, which gets no suggestions
    num_forgotten: int = 0  # by `clapboard forget --task`, which lets nothing more be written about them
    unreadable: list[str] = field(default_factory=list)  # a sentence for each task that can't be read


class Prelabeller:
    """Queues the predictions that a project's tasks lack."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudioClient, waker: Waker) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._waker = waker
        self._sources = audio_sources(settings, store)

    def run(self, project_id: int, *, on_page: Callable[[Prelabelled], None] = lambda _: None) -> Prelabelled:
        """Queue a job for every task that lacks a prediction of the serving model version; workers push the results.

        Memory doesn't grow with the number of tasks. `on_page` gets the counts so far after each page.
        Raises `LabelConfigError`, `NoWorkerError`, `LabelStudioError`.
        """
        project = self._client.project(project_id)
        label_space = parse_label_config(project.label_config)
        if not label_space.suggested:
            raise LabelConfigError(f"Nothing in project {project_id} gets suggestions. {no_suggestions(label_space)}")
        served = find_serving(self._store, self._settings.model, project_id, label_space)
        self._store.catalog.put_label_space(served.space_id, project.label_config)
        counts = Prelabelled(served.model_version)
        completed = completed_tasks(self._store, project_id, project.annotations_per_task)
        tasks = self._client.tasks(project_id, on_unreadable=counts.unreadable.append)
        last_task, forgotten = 0, self._store.departures.forgotten(project_id)
        while page := list(itertools.islice(tasks, _TASKS_PER_PAGE)):
            remembered = [task for task in page if task.id not in forgotten]
            counts.num_forgotten += len(page) - len(remembered)
            counts.num_tasks += len(page)
            if remembered:
                self._queue_page(project_id, remembered, label_space, served, completed, counts)
            last_task = page[-1].id
            on_page(counts)
        self._store.catalog.set_last_task(project_id, last_task)
        self._update_display(project_id)
        return counts

    def _update_display(self, project_id: int) -> None:
        """Queue what makes Label Studio show stored predictions or ask for them, and what updates the tabs."""
        if project_id in self._store.catalog.connected_projects():
            self._store.jobs.add(LEARN, [JobRequest("align", project_id), JobRequest("tabs", project_id)])
            self._waker.wake(LEARN)

    def _queue_page(
        self,
        project_id: int,
        page: list[Task],
        label_space: LabelSpace,
        served: Serving,
        completed: Set[int],
        counts: Prelabelled,
    ) -> None:
        version = counts.model_version
        tasks = self._store_tasks(project_id, page, label_space, counts)
        stored_predictions = self._client.predictions(project_id, [task.id for task in page], served.shown_as)
        present = {task for task, prediction_ids in stored_predictions if prediction_ids}
        missing = {
            task.task: task
            for task in tasks
            if task.task not in present and task.task not in completed and not task.held_out
        }
        uri_keys = {task_id: task.uri_key for task_id, task in missing.items()}
        cached = self._store.predictions.cached(project_id, uri_keys, version)
        owed = self._store.predictions.owe(project_id, sorted(cached), version)
        # Held-out audio is embedded first, so that the same recording is recognised under other addresses.
        unread = [task for task in tasks if task.held_out and not task.content]
        # So is annotated audio, which is learnt from.
        annotated = [task for task in tasks if task.task in completed and not task.held_out]
        with_embeddings = embedded(self._store, annotated, served.encoder, frames=served.frames) if annotated else {}
        unread += [task for task in annotated if task.task not in with_embeddings]
        embed_requests = [predict_request(project_id, task, served, push=False) for task in unread]
        predict_requests = [
            predict_request(project_id, task, served, push=True)
            for task_id, task in missing.items()
            if task_id not in cached
        ]
        for requests in (embed_requests, predict_requests):
            if requests:
                self._store.jobs.add(BATCH, requests)
        if embed_requests or predict_requests:
            self._waker.wake(BATCH)
        counts.num_present += len(present)
        counts.num_complete += sum(
            task.task in completed and task.task not in present and not task.held_out for task in tasks
        )
        counts.num_cached += len(owed)
        counts.num_queued += len(predict_requests)
        counts.num_held_out += sum(task.held_out for task in tasks)

    def _store_tasks(
        self, project_id: int, page: list[Task], label_space: LabelSpace, counts: Prelabelled
    ) -> list[KnownTask]:
        """Store the page's tasks and return them as stored; those without usable audio are recorded as failures."""
        reader = TaskReader(self._settings, self._sources, project_id, self._test_share(project_id))
        tasks: list[KnownTask] = []
        refused: list[tuple[JobRequest, ClapboardError]] = []
        for task in page:
            try:
                tasks.append(reader.read(label_space, task.id, task.data))
            except SourceError as error:
                refused.append((JobRequest("predict", project_id, task.id, counts.model_version), error))
        self._store.jobs.record_failures(BATCH, refused)
        counts.num_refused += len(refused)
        self._store.tasks.put(project_id, tasks)
        return list(self._store.tasks.get(project_id, [task.task for task in tasks]).values())

    def _test_share(self, project_id: int) -> float:
        try:
            return self._store.catalog.project(project_id).test_share
        except NotFoundError:  # never connected, so no task is held out
            return 0.0


def predict_request(project: int, task: KnownTask, served: Serving, *, push: bool) -> JobRequest:
    """The job that predicts the task with the serving encoder and head."""
    payload = PredictPayload(
        uri=task.uri,
        uri_key=task.uri_key,
        encoder=served.encoder.model,
        space_id=served.space_id,
        head=served.head,
        channel=served.channel,
        frames=served.frames,
    )
    encoder = served.encoder
    claimed_by = number_format(encoder.dtype) if is_tuned(encoder.model) else f"{encoder.version} {encoder.dtype}"
    return JobRequest(
        "predict", project, task.task, served.model_version, payload.model_dump(), push, encoder=claimed_by
    )
