"""A rollout's middle steps, page by page: tasks with their embeddings → predictions → Label Studio."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clapboard.project.display import completed_tasks
from clapboard.project.known_tasks import embedded
from clapboard.project.prelabel import predict_request
from clapboard.project.stored_frames import FramesOf, frames_of, predictions
from clapboard.queue.celery_app import BATCH, Waker
from clapboard.store import Store
from clapboard.store.predictions import StoredPrediction
from clapboard.store.tasks import KnownTask
from clapboard.suggest.prediction import shown_name
from clapboard.suggest.scoring import Array
from workers.push import Pusher
from workers.rollout_plan import LabelStudioHas, RolloutPlan


def _no_frames(_uri_key: str) -> None:
    return None


@dataclass(frozen=True)
class TaskPage:
    """Some of a project's tasks, without those that are held out, and their embeddings `[W, D]` by task id.

    `open_task_ids` are the tasks that people may still annotate.
    """

    tasks: Sequence[KnownTask]
    open_task_ids: Collection[int]
    embeddings: Mapping[int, Array]
    frames: FramesOf = _no_frames


def page_of(store: Store, plan: RolloutPlan, tasks: Sequence[KnownTask], open_task_ids: Collection[int]) -> TaskPage:
    """The page of these tasks, with what the plan's encoder has made of their recordings."""
    embeddings = embedded(store, tasks, plan.encoder, frames=bool(plan.label_space.on_frames))
    return TaskPage(tasks, open_task_ids, embeddings, frames_of(store, plan.encoder.version, plan.encoder.dtype))


def page_predictions(plan: RolloutPlan, page: TaskPage) -> list[StoredPrediction]:
    """The version's predictions of the page's open tasks, as far as they are embedded; a canary's of its half."""
    version = plan.version
    tasks = [task for task in page.tasks if task.task in page.open_task_ids and task.task in page.embeddings]
    embeddings = {task.uri_key: page.embeddings[task.task] for task in tasks}
    made = dict(predictions(plan.label_space, plan.head, version.model_version, embeddings, page.frames))
    of_canary = plan.canary.of_tasks(tasks, shown_name(version.model_version)) if plan.canary else {}
    return [
        of_canary.get(task.task)
        or StoredPrediction(
            version.project, task.task, version.model_version, task.uri_key, of_task.score, of_task.result
        )
        for task in tasks
        if (of_task := made.get(task.uri_key)) is not None
    ]


class RolloutPages:
    """Reads a project's tasks, queues missing embeddings, delivers predictions. Without a pusher, none are pushed."""

    def __init__(self, store: Store, waker: Waker, pusher: Pusher | None) -> None:
        self._store = store
        self._waker = waker
        self._pusher = pusher

    def read(self, plan: RolloutPlan) -> Iterator[TaskPage]:
        """The project's tasks, those that are held out excepted."""
        completed = completed_tasks(self._store, plan.project, plan.annotations_per_task)
        for known_tasks in self._store.tasks.of_project(plan.project):
            tasks = [task for task in known_tasks if not task.held_out]
            open_task_ids = {task.task for task in tasks} - completed
            yield page_of(self._store, plan, tasks, open_task_ids)

    def queue_missing(self, plan: RolloutPlan, page: TaskPage) -> int:
        """Queue the page's tasks that aren't embedded yet; how many those are.

        Annotated tasks are among them, since heads are fitted to their embeddings. Tasks whose job or audio has failed
        are not: each new head would try them again.
        """
        tasks = [
            task for task in page.tasks if task.task not in page.embeddings and task.task not in plan.failed_task_ids
        ]
        failures = self._store.audio_failures.of({task.uri_key for task in tasks})
        tasks = [task for task in tasks if (failure := failures.get(task.uri_key)) is None or not failure.is_recent]
        if tasks:
            requests = [
                predict_request(plan.project, task, plan.embeds_with, push=self._is_pushed(task, page))
                for task in tasks
            ]
            self._store.jobs.add(BATCH, requests)
            self._waker.wake(BATCH)
        return len(tasks)

    def deliver(self, plan: RolloutPlan, predictions: Sequence[StoredPrediction]) -> None:
        """Store the predictions and push those that Label Studio lacks."""
        if not predictions:
            return
        if self._pusher is None:
            self._store.predictions.put_all(predictions, push=False)
        elif plan.label_studio_has is LabelStudioHas.NONE:
            claimed = self._store.predictions.put_for_push(predictions)
            self._pusher.push(claimed, known_absent=True, record=plan.record)
        else:
            self._store.predictions.put_all(predictions, push=True)
            if plan.label_studio_has is LabelStudioHas.SOME:
                task_ids = [made.task for made in predictions]
                self._store.predictions.owe(plan.project, task_ids, plan.version.model_version)
            self._pusher.push_owed()

    def _is_pushed(self, task: KnownTask, page: TaskPage) -> bool:
        return self._pusher is not None and task.task in page.open_task_ids
