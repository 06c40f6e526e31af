"""Webhook events: each is stored in the inbox before Label Studio gets its 2xx, and may then start a job."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.wire import project_id
from clapboard.errors import NotFoundError, RequestError
from clapboard.installation.public_address import audio_sources
from clapboard.logs import about
from clapboard.project.known_tasks import remember_tasks
from clapboard.project.training_request import RequestedTraining, request_training
from clapboard.queue.celery_app import BATCH, LEARN, TRAIN, Waker
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.untrusted import identifier, is_storable, rebuilt, whole_number

START_TRAINING = "START_TRAINING"
TASKS_CREATED = "TASKS_CREATED"
TASKS_DELETED = "TASKS_DELETED"
PROJECT_UPDATED = "PROJECT_UPDATED"
ACTIONS = frozenset(
    {
        START_TRAINING,
        TASKS_CREATED,
        TASKS_DELETED,
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATIONS_DELETED",
        PROJECT_UPDATED,
    }
)
"""The actions of Label Studio 1.23.2. Events with any other are kept too."""

log = logging.getLogger(__name__)

_ACTION = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_SECRETS = frozenset({"access_token", "token", "login", "password", "task_data_login", "task_data_password"})
_KEPT_WHOLE = frozenset({"data", "result"})  # the contents of tasks and annotations, where no key is a credential


@dataclass(frozen=True)
class Receipt:
    """An event's number in the inbox, the job that it started, if any, and what «Start Training» shows."""

    event: int
    job: int | None
    message: str | None = None


class WebhookService:
    """Receives every form of event that Label Studio sends, and those it may add."""

    def __init__(self, settings: Settings, store: Store, waker: Waker) -> None:
        self._settings = settings
        self._store = store
        self._sources = audio_sources(settings, store)
        self._waker = waker

    def receive(self, body: Mapping[str, Any]) -> Receipt:
        """Store the event in the inbox and start what it asks for.

        Raises `RequestError` if the body is no event, or can't be stored.
        """
        action = body.get("action")
        if not isinstance(action, str) or not _ACTION.fullmatch(action):
            raise RequestError("The webhook event has no action: send Label Studio's payload as it is.")
        project = _project_of(body)
        with about(project=project):
            event = self._store.append_event(action, project, _without_secrets(body))
            if action == START_TRAINING and project:
                requested = self.train(project)
                return Receipt(event, requested.job, requested.message)
            return Receipt(event, self._start(action, project, body) if project else None)

    def _start(self, action: str, project: int, body: Mapping[str, Any]) -> int | None:
        """The job that the event starts, if any."""
        if action == TASKS_CREATED:
            return self._add_job(BATCH, "prelabel", project)
        if action == TASKS_DELETED:
            task_ids = _ids(body.get("tasks"))
            self._store.predictions.forget_tasks(project, task_ids)
            self._store.tasks.forget(project, task_ids)
        if action.startswith("ANNOTATION"):
            remember_tasks(self._settings, self._store, self._sources, project, body)
            return self._add_job(LEARN, "learn", project)
        if action == PROJECT_UPDATED and self._store_label_config(project, body):
            return self._add_job(LEARN, "learn", project)
        return None

    def look_for_lost_events(self) -> None:
        """Have a worker read from Label Studio what was missed while no backend ran: each event is sent only once."""
        if self._settings.label_studio_api_key.get_secret_value():
            for project in self._store.catalog.connected_projects():
                self._add_job(LEARN, "sync", project)

    def train(self, project: int) -> RequestedTraining:
        """Queue the project's training. If a job for it is open already, that one becomes due now."""
        requested = request_training(self._settings, self._store, project)
        if requested.job is not None:
            self._waker.wake(TRAIN)
        log.info("%s", requested.message)
        return requested

    def _store_label_config(self, project: int, body: Mapping[str, Any]) -> bool:
        """Store the label config that a connected project has now; whether it is new."""
        updated = body.get("project")
        label_config = updated.get("label_config") if isinstance(updated, Mapping) else None
        connected = self._store.catalog.connected_projects().get(project)
        if connected is None or not isinstance(label_config, str) or not is_storable(label_config):
            return False
        if label_config == connected.label_config:
            return False
        self._store.catalog.put_project(project, label_config, connected.model_version)
        return True

    def _add_job(self, queue: str, kind: str, project: int) -> int | None:
        """Queue a job for the project, if it is connected; the job's id."""
        try:
            if not self._store.catalog.project(project).connected:
                return None
        except NotFoundError:
            return None
        (job,) = self._store.jobs.add(queue, [JobRequest(kind, project)])
        self._waker.wake(queue)
        return job


def _project_of(body: Mapping[str, Any]) -> int | None:
    """The event's project: an object with an id, an id alone, or, in some events, that of the annotation or task.

    Raises `RequestError` if the event's own project can't be a number of Label Studio's.
    """
    if (number := _number_of(body)) is not None:
        return project_id(number)
    for holder in (part for name in ("annotation", "task") for part in _objects(body.get(name))):
        with contextlib.suppress(RequestError):
            if (number := _number_of(holder)) is not None:
                return project_id(number)
    return None


def _number_of(holder: Mapping[str, Any]) -> int | str | None:
    """The holder's project, if that is a text or a number."""
    project = holder.get("project")
    number = project.get("id") if isinstance(project, Mapping) else project
    number = whole_number(number)
    if isinstance(number, bool) or not isinstance(number, int | float | str):
        return None
    return number if isinstance(number, int) else str(number)


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping)]


def _ids(value: Any) -> list[int]:
    items = value if isinstance(value, list) else []
    ids = [identifier(item.get("id") if isinstance(item, Mapping) else item) for item in items]
    return [number for number in ids if number is not None]


def _without_secrets(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as it was sent, without credentials: the inbox is kept for good."""
    return dict(rebuilt(body, leaves_out=_SECRETS.__contains__, keeps_whole=_KEPT_WHOLE.__contains__))
