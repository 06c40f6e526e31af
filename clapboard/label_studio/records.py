"""Label Studio's projects, tasks, backends and webhooks, as small frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from clapboard.untrusted import identifier

_MAX_NAME_CHARS = 40


@dataclass(frozen=True, slots=True)
class Project:
    """The fields of a project that Clapboard needs."""

    id: int
    title: str
    label_config: str
    model_version: str  # whose predictions are shown; empty if none is set
    num_tasks: int
    shows_predictions: bool
    annotations_per_task: int = 1  # with so many annotations, a task is complete
    sampling: str = ""  # the order in which people get tasks, in Label Studio's words

    @classmethod
    def from_sdk(cls, project: Any) -> Self:
        """The record of an SDK project."""
        return cls(
            id=int(project.id),
            title=project.title or "",
            label_config=project.label_config or "",
            model_version=project.model_version or "",
            num_tasks=int(project.task_number or 0),
            shows_predictions=bool(project.show_collab_predictions),
            annotations_per_task=int(project.maximum_annotations or 1),
            sampling=str(getattr(project.sampling, "value", project.sampling) or ""),
        )


@dataclass(frozen=True, slots=True)
class Task:
    """A task's id and data, with storage URIs as imported."""

    id: int
    data: dict[str, Any]

    @classmethod
    def from_json(cls, task: Any) -> Self | None:
        """The record of a task in the API's answer; None if it has no valid id. Invalid data become empty."""
        if not isinstance(task, Mapping) or (task_id := identifier(task.get("id"))) is None:
            return None
        data = task.get("data")
        return cls(task_id, dict(data) if isinstance(data, Mapping) else {})


def unreadable_task(task: Any) -> str:
    """The sentence about a task without a valid id."""
    task_id = ascii(task.get("id") if isinstance(task, Mapping) else task)
    shown = task_id if len(task_id) <= _MAX_NAME_CHARS else f"{task_id[:_MAX_NAME_CHARS]}…"
    return f"A task has the id {shown}, which isn't a valid number: delete it in Label Studio."


@dataclass(frozen=True, slots=True)
class Backend:
    """An ML backend of a project."""

    id: int
    url: str
    title: str
    model_version: str  # the backend's answer to `/setup` during the call that returned this record
    is_connected: bool
    error: str  # why it isn't connected, in Label Studio's words
    auth_user: str
    has_password: bool

    @classmethod
    def from_sdk(cls, backend: Any) -> Self:
        """The record of an SDK backend."""
        return cls(
            id=int(backend.id),
            url=backend.url or "",
            title=backend.title or "",
            model_version=backend.model_version or "",
            is_connected=backend.state == "CO",
            error=backend.error_message or "",
            auth_user=backend.basic_auth_user or "",
            has_password=bool(backend.basic_auth_pass_is_set),
        )


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of a project."""

    id: int
    url: str
    sends_everything: bool  # active, for every event, with its payload
    headers: dict[str, str] = field(repr=False)  # one of them is a password

    @classmethod
    def from_sdk(cls, webhook: Any) -> Self:
        """The record of an SDK webhook."""
        return cls(
            id=int(webhook.id),
            url=webhook.url or "",
            sends_everything=bool(webhook.is_active and webhook.send_payload and webhook.send_for_all_actions),
            headers=dict(webhook.headers or {}),
        )

    def has(self, headers: Mapping[str, str]) -> bool:
        """Whether it has all of these headers with exactly these values."""
        sent = {name.lower(): value for name, value in self.headers.items()}
        return all(sent.get(name.lower()) == value for name, value in headers.items())
