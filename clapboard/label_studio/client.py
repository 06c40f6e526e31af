"""The client of Label Studio's API, on label-studio-sdk.

It returns small typed records, and raises `LabelStudioError`, or `LabelStudioUnreachable` if the same call may succeed
later. Where Label Studio 1.23.2 behaves unexpectedly, a comment says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from label_studio_sdk.core.api_error import ApiError

from clapboard.errors import LabelStudioError
from clapboard.label_studio.annotations import AnnotationCalls
from clapboard.label_studio.failures import public_url, reason_in
from clapboard.label_studio.predictions import ITEMS_PER_IMPORT, PredictionCalls, chunks_of
from clapboard.label_studio.records import Backend, Project, Task, Webhook, unreadable_task
from clapboard.label_studio.session import IMPORT_ONCE, ONCE
from clapboard.label_studio.tabs import TabCalls
from clapboard.untrusted import identifier

FILES_PER_IMPORT = 50  # Label Studio takes 100 at most

log = logging.getLogger(__name__)


def _warn(sentence: str) -> None:
    log.warning("%s", sentence)


class LabelStudioClient(PredictionCalls, AnnotationCalls, TabCalls):
    """Label Studio's API as the token's user."""

    def check_token(self) -> str:
        """The e-mail address of the token's user, which proves that the token is accepted."""
        with self._asking("the token's user"):
            email = self._sdk.users.whoami().email
        if not email:
            raise LabelStudioError(
                f"{public_url(self.url)} answers, but it isn't Label Studio: check LABEL_STUDIO_URL."
            )
        return str(email)

    def users(self) -> dict[int, str]:
        """By id, the names of the users whom the token can see; the e-mail address of those without a name."""
        with self._asking("its users"):
            names = {
                user.id: " ".join(f"{user.first_name or ''} {user.last_name or ''}".split()) or user.email
                for user in self._sdk.users.list()
            }
        return {int(user_id): str(name) for user_id, name in names.items() if user_id and name}

    def version(self) -> str:
        """Label Studio's version, such as «1.23.2»."""
        with self._asking("its version"):
            return str(self._sdk.versions.get().release or "unknown")

    def create_project(self, title: str, label_config: str) -> Project:
        """Create a project. Label Studio requires a title of 3 to 50 characters."""
        with self._asking(f"a project titled «{title}»"):
            created = self._sdk.projects.create(title=title, label_config=label_config, request_options=ONCE)
        return self.project(created.id)

    def delete_project(self, project_id: int) -> None:
        """Delete the project with all its tasks."""
        with self._asking(f"project {project_id}"):
            self._sdk.projects.delete(project_id)

    def set_model_version(self, project_id: int, model_version: str) -> None:
        """Set the model version whose predictions Label Studio shows.

        Label Studio refuses a version that is neither a backend's title nor a stored prediction's version.
        """
        with self._asking(f"model version {model_version} for project {project_id}"):
            self._sdk.projects.update(project_id, model_version=model_version)

    # Tasks

    def import_tasks(self, project_id: int, data: Iterable[Mapping[str, Any]]) -> list[int]:
        """Import tasks. Returns their ids, in the order of the data."""
        ids: list[int] = []
        for chunk in chunks_of(data, ITEMS_PER_IMPORT):
            ids += self._import(project_id, json=[dict(item) for item in chunk])
        return ids

    def import_files(
        self, project_id: int, paths: Iterable[Path], *, called: Callable[[Path], str] = lambda path: path.name
    ) -> list[int]:
        """Upload files, each as a task, under the names that `called` gives. Returns the tasks' ids, in that order."""
        ids: list[int] = []
        for chunk in chunks_of(paths, FILES_PER_IMPORT):
            with ExitStack() as open_files:
                parts = {
                    f"file{i}": (called(path), open_files.enter_context(path.open("rb")))
                    for i, path in enumerate(chunk)
                }
                ids += self._import(project_id, files=parts)
        return ids

    def tasks(
        self, project_id: int, *, after: int = 0, page_size: int = 1000, on_unreadable: Callable[[str], object] = _warn
    ) -> Iterator[Task]:
        """The project's tasks with ids above `after`, ascending. They are read page by page, to bound memory.

        A task without a valid id is left out; `on_unreadable` gets a sentence about it.
        """
        for page in self._task_pages(project_id, "id,data", page_size, after=after):
            for content in page:
                if task := Task.from_json(content):
                    yield task
                else:
                    on_unreadable(unreadable_task(content))

    def add_task_data(self, task: Task, more: Mapping[str, Any]) -> None:
        """Add values to the task's data."""
        with self._asking(f"task {task.id}"):
            self._request("PATCH", f"api/tasks/{task.id}/", json={"data": task.data | dict(more)})

    def last_task(self, project_id: int) -> int:
        """The id of the project's newest task; 0 if it has none."""
        query = json.dumps({"ordering": ["-tasks:id"]})
        params = {"project": project_id, "fields": "task_only", "include": "id", "page": 1, "page_size": 1}
        with self._asking(f"tasks of project {project_id}"):
            answer = self._request("GET", "api/tasks/", params=params | {"query": query, "review": "true"})
            ids = (identifier(task["id"]) for task in answer["tasks"])
            return max((number for number in ids if number), default=0)

    def model_versions(self, project_id: int) -> dict[str, int]:
        """By model version, how many predictions the project has."""
        with self._asking(f"model versions of project {project_id}"):
            return {
                str(name): int(count)
                for name, count in self._request("GET", f"api/projects/{project_id}/model-versions/").items()
                if count
            }

    def delete_model_version(self, project_id: int, model_version: str) -> int:
        """Delete the version's predictions. Returns how many there were.

        Label Studio then also clears the project's model version, whichever it is; it is set again here unless it is
        the deleted one.
        """
        kept = self.project(project_id).model_version
        path = f"api/projects/{project_id}/model-versions/"
        with self._asking(f"model version {model_version} of project {project_id}"):
            answer = self._request("DELETE", path, json={"model_version": model_version})
        if kept and kept != model_version:
            self.set_model_version(project_id, kept)
        return int(answer.get("deleted_predictions") or 0)

    # ML backends and webhooks

    def backends(self, project_id: int) -> list[Backend]:
        """The project's ML backends, by ascending id. Label Studio calls `/health` and `/setup` of each."""
        with self._asking(f"backends of project {project_id}"):
            backends = [Backend.from_sdk(backend) for backend in self._sdk.ml.list(project=project_id)]
        return sorted(backends, key=lambda backend: backend.id)

    def add_backend(self, project_id: int, *, url: str, title: str, user: str = "", password: str = "") -> Backend:
        """Add a backend to the project. Label Studio calls its `/health` and `/setup`, and makes its webhook."""
        fields = _backend_fields(project_id, url, title, user, password)
        with self._asking(f"the backend at {public_url(url)}"):
            return Backend.from_sdk(self._sdk.ml.create(**fields, request_options=ONCE))

    def update_backend(
        self, backend_id: int, project_id: int, *, url: str, title: str, user: str = "", password: str = ""
    ) -> Backend:
        """Set all of the backend's fields; Label Studio answers 500 if some are left out."""
        fields = _backend_fields(project_id, url, title, user, password)
        with self._asking(f"the backend at {public_url(url)}"):
            return Backend.from_sdk(self._sdk.ml.update(backend_id, **fields))

    def remove_backend(self, backend_id: int) -> None:
        """Remove the backend. Label Studio leaves its webhook behind."""
        with self._asking(f"backend {backend_id}"):
            self._sdk.ml.delete(backend_id)

    def webhooks(self, project_id: int) -> list[Webhook]:
        """The project's webhooks, by ascending id."""
        options = {"additional_query_parameters": {"project": project_id}}
        with self._asking(f"webhooks of project {project_id}"):
            webhooks = [Webhook.from_sdk(webhook) for webhook in self._sdk.webhooks.list(request_options=options)]
        return sorted(webhooks, key=lambda webhook: webhook.id)

    def ensure_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> bool:
        """Make exactly one webhook send every event to `url` with these headers. Returns whether anything changed.

        Other headers of that webhook are kept.
        """
        present = [webhook for webhook in self.webhooks(project_id) if webhook.url == url]
        for duplicate in present[1:]:
            self.remove_webhook(duplicate.id)
        if present and present[0].sends_everything and present[0].has(headers):
            return len(present) > 1
        names = {name.lower() for name in headers}
        others = {k: v for k, v in (present[0].headers if present else {}).items() if k.lower() not in names}
        fields: dict[str, Any] = {"url": url, "headers": others | dict(headers), "is_active": True}
        fields |= {"send_payload": True, "send_for_all_actions": True}
        with self._asking(f"the webhook {public_url(url)}"):
            if present:
                self._sdk.webhooks.update(present[0].id, **fields)
            else:
                self._sdk.webhooks.create(project=project_id, **fields, request_options=ONCE)
        return True

    def remove_webhook(self, webhook_id: int) -> None:
        """Remove the webhook."""
        with self._asking(f"webhook {webhook_id}"):
            self._sdk.webhooks.delete(webhook_id)

    def why_refused(self, kind: Literal["backend", "webhook"], url: str) -> str:
        """Why Label Studio would refuse the URL for a backend or a webhook; empty if it wouldn't.

        Nothing is created, because the request names a project that doesn't exist; the URL is checked all the same.
        """
        path = "api/ml/" if kind == "backend" else "api/webhooks/"
        with self._asking(f"the {kind} {public_url(url)}"):
            try:
                self._request("POST", path, json={"project": 0, "url": url}, request_options=ONCE)
            except ApiError as error:
                if error.status_code == 400 and isinstance(error.body, dict):
                    return reason_in(error.body.get("validation_errors", {}).get("url", []))
                if error.status_code in (403, 500):  # a blocked network, or a host name without an address
                    return reason_in(error.body)
                raise
        return ""

    def _import(self, project_id: int, **content: Any) -> list[int]:
        with self._asking(f"an import into project {project_id}"):
            answer = self._request(
                "POST",
                f"api/projects/{project_id}/import",
                params={"return_task_ids": "true"},
                request_options=IMPORT_ONCE,
                **content,
            )
            return [int(task_id) for task_id in answer["task_ids"]]


def _backend_fields(project_id: int, url: str, title: str, user: str, password: str) -> dict[str, Any]:
    auth = {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
    no_auth = {"auth_method": "NONE", "basic_auth_user": ""}  # Label Studio answers 500 to an empty password
    return {"project": project_id, "url": url, "title": title} | (auth if user and password else no_auth)
