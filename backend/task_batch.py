"""The tasks of one `/predict` request: as they were read, and those of them that may be predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from clapboard.errors import ClapboardError, SourceError
from clapboard.labels.label_space import LabelSpace
from clapboard.project.known_tasks import TaskReader
from clapboard.project.serving import Serving
from clapboard.store.jobs import JobRequest
from clapboard.store.tasks import KnownTask
from clapboard.untrusted import identifier


@dataclass(frozen=True)
class TaskRequest:
    """A request as it was read. Its model version stays the same, whatever is promoted while it is answered."""

    tasks: Sequence[Mapping[str, Any]]
    project: int
    label_config: str
    label_space: LabelSpace
    served: Serving
    began_at: float
    answered_as: str  # the version's name in the answer: by default that which it has in Label Studio

    @property
    def model_version(self) -> str:
        """The version that makes every prediction in the answer."""
        return self.served.model_version

    @property
    def is_asked_anew(self) -> bool:
        """Whether Label Studio asks for tasks whose predictions it has under the shared name, see `Display.asks`."""
        return self.answered_as != self.served.shown_as

    @property
    def is_for_several(self) -> bool:
        """Whether it has several tasks: somebody asked for them on purpose, since opening a task asks for one."""
        return len(self.tasks) > 1


@dataclass(frozen=True)
class AdmittedTasks:
    """The request's tasks, sorted into those to predict and those that mustn't or can't be predicted."""

    request: TaskRequest
    task_ids: list[int | None] = field(default_factory=list)  # one per task of the request; None: answered with []
    known_tasks: dict[int, KnownTask] = field(default_factory=dict)
    held_out: list[KnownTask] = field(default_factory=list)
    refusals: list[tuple[JobRequest, ClapboardError]] = field(default_factory=list)

    @cached_property
    def uri_keys(self) -> dict[int, str]:
        """The URI key of each task to predict."""
        return {task_id: task.uri_key for task_id, task in self.known_tasks.items()}


def admit_tasks(request: TaskRequest, reader: TaskReader) -> AdmittedTasks:
    """Sort the request's tasks. Nothing is written: the caller does that once for all tasks."""
    admitted = AdmittedTasks(request)
    if not request.label_space.suggested:
        admitted.task_ids.extend(None for _ in request.tasks)
        return admitted
    for task in request.tasks:
        admitted.task_ids.append(_admit(task, reader, admitted))
    return admitted


def _admit(task: Mapping[str, Any], reader: TaskReader, admitted: AdmittedTasks) -> int | None:
    """The id to predict the task under; None if it mustn't or can't be predicted."""
    request = admitted.request
    data, task_id = task.get("data"), identifier(task.get("id"))
    try:
        known_task = reader.read(request.label_space, task_id or 0, data if isinstance(data, Mapping) else {})
    except SourceError as error:
        if task_id is not None:
            job = JobRequest("predict", request.project, task_id, request.model_version)
            admitted.refusals.append((job, error))
        return None
    if known_task.held_out:  # its label is to be given without a suggestion in sight
        if task_id is not None:
            admitted.held_out.append(known_task)
        return None
    if _has_prediction(task, request.answered_as):  # Label Studio would store a second one beside it
        return None
    if task_id is None:
        task_id = _id_of_audio(known_task.uri_key)
        known_task = replace(known_task, task=task_id)
    admitted.known_tasks[task_id] = known_task
    return task_id


def _has_prediction(task: Mapping[str, Any], model_version: str) -> bool:
    predictions = task.get("predictions")
    return isinstance(predictions, list) and any(
        isinstance(prediction, Mapping) and prediction.get("model_version") == model_version
        for prediction in predictions
    )


def _id_of_audio(uri_key: str) -> int:
    """A negative id for a task without one, which only other callers than Label Studio send: one for each audio."""
    return -int(hashlib.sha256(uri_key.encode()).hexdigest()[:13], 16)
