"""Webhook events: into the inbox first, on disk before Label Studio gets its 2xx, then whatever they start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backend.predict import project_id
from clapboard.errors import NotFoundError, RequestError
from clapboard.jobs import BATCH, LEARN, TRAIN, Bell
from clapboard.known_tasks import remember_tasks
from clapboard.logs import about
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import JobRequest

START_TRAINING = "START_TRAINING"
TASKS_CREATED = "TASKS_CREATED"
TASKS_DELETED = "TASKS_DELETED"
PROJECT_UPDATED = "PROJECT_UPDATED"
ACTIONS = frozenset(
    {
        START_TRAINING,
        TASKS_CREATED,
        TASKS_DELETED,
        *(f"ANNOTATION_{what}" for what in ("CREATED", "UPDATED")),
        *(f"ANNOTATIONS_{what}" for what in ("CREATED", "DELETED")),
        PROJECT_UPDATED,
    }
)
"""Those of Label Studio 1.23.2; others are kept just as well."""

_ACTION = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_SECRETS = frozenset({"access_token", "token", "login", "password", "task_data_login", "task_data_password"})
_PEOPLES = frozenset({"data", "result"})  # what tasks hold and people said is kept to the letter


class WebhookService:
    """Takes every event form of Label Studio's contract, and any it may add."""

    def __init__(self, settings: Settings, store: Store, bell: Bell) -> None:
        self._settings = settings
        self._store = store
        self._sources = AudioSources(settings)
        self._bell = bell

    def receive(self, body: Mapping[str, Any]) -> tuple[int, int | None]:
        """The event's number in the inbox, and the job that it started, if any. Raises `RequestError`."""
        action = body.get("action")
        if not isinstance(action, str) or not _ACTION.fullmatch(action):
            raise RequestError("The webhook event has no action: send Label Studio's payload as it is.")
        project = _project_of(body)
        with about(project=project):
            event = self._store.append_event(action, project, _without_secrets(body))
            return event, self._start(action, project, body) if project else None

    def _start(self, action: str, project: int, body: Mapping[str, Any]) -> int | None:
        """The job that the event starts, if any."""
        if action == START_TRAINING:
            return self.train(project)
        if action == TASKS_CREATED:
            return self._prelabel(project)
        if action == TASKS_DELETED:
            self._store.predictions.forget_tasks(project, _ids(body.get("tasks")))
            self._store.tasks.forget(project, _ids(body.get("tasks")))
        if action.startswith("ANNOTATION"):
            remember_tasks(self._settings, self._store, self._sources, project, body)
            return self._ask(LEARN, "learn", project)
        if action == PROJECT_UPDATED and self._is_config_new(project, body):
            return self._ask(LEARN, "learn", project)
        return None

    def train(self, project: int) -> int:
        """The project's training job: a new one, or the one that is open already, which now waits no longer."""
        (job,) = self._store.jobs.add(TRAIN, [JobRequest("train", project, delay_s=0.0)])
        self._bell.ring(TRAIN)
        return job

    def _is_config_new(self, project: int, body: Mapping[str, Any]) -> bool:
        """Whether a connected project has another label config now, which is kept."""
        held = body.get("project")
        label_config = held.get("label_config") if isinstance(held, Mapping) else None
        known = self._store.catalog.connected_projects().get(project)
        if known is None or not isinstance(label_config, str) or label_config == known.label_config:
            return False
        self._store.catalog.put_project(project, label_config, known.model_version)
        return True

    def _prelabel(self, project: int) -> int | None:
        """New tasks of a connected project get their suggestions without anybody asking."""
        return self._ask(BATCH, "prelabel", project)

    def _ask(self, queue: str, kind: str, project: int) -> int | None:
        """A job for the project, if it is connected."""
        try:
            known = self._store.catalog.project(project)
        except NotFoundError:
            return None
        if not known.connected:
            return None
        (job,) = self._store.jobs.add(queue, [JobRequest(kind, project)])
        self._bell.ring(queue)
        return job


def _project_of(body: Mapping[str, Any]) -> int | None:
    """The event's project: an object with an id in most events, an id in some, in the annotation or task in others."""
    holders = [body, *(part for name in ("annotation", "task") for part in _objects(body.get(name)))]
    for holder in holders:
        project = holder.get("project")
        number = project.get("id") if isinstance(project, Mapping) else project
        if isinstance(number, int | str) and not isinstance(number, bool):
            return project_id(number)
    return None


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping)]


def _ids(value: Any) -> list[int]:
    found = [
        item.get("id") if isinstance(item, Mapping) else item for item in (value if isinstance(value, list) else [])
    ]
    return [number for number in found if isinstance(number, int) and abs(number) < 2**63]


def _without_secrets(value: Any) -> Any:
    """The body as it came, less any credentials: the inbox is kept for good."""
    if isinstance(value, Mapping):
        kept = ((key, item) for key, item in value.items() if key not in _SECRETS)
        return {key: item if key in _PEOPLES else _without_secrets(item) for key, item in kept}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value
