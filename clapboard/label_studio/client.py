"""The one client of Label Studio's API, on label-studio-sdk.

What comes out is small and typed; every failure is a `LabelStudioError`, or a `LabelStudioUnreachable` where the same
call may succeed later. What Label Studio 1.23.2 does unexpectedly is said where it shapes a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from label_studio_sdk.core.api_error import ApiError

from clapboard.errors import LabelStudioError
from clapboard.label_studio.annotations import AnnotationCalls
from clapboard.label_studio.failures import public_url, reason_in
from clapboard.label_studio.predictions import ITEMS_PER_IMPORT, PredictionCalls, chunks_of
from clapboard.label_studio.records import Backend, Project, Task, Webhook
from clapboard.label_studio.session import IMPORT_ONCE, ONCE

FILES_PER_IMPORT = 50  # Label Studio takes 100 at most


class LabelStudioClient(PredictionCalls, AnnotationCalls):
    """Label Studio as the user whom the token belongs to."""

    def check_token(self) -> str:
        """E-mail address of the user whom the token belongs to: the proof that it is accepted."""
        with self._asking("the token's user"):
            email = self._sdk.users.whoami().email
        if not email:
            raise LabelStudioError(f"{public_url(self.url)} answers, but not as Label Studio does.")
        return str(email)

    def version(self) -> str:
        """Version of Label Studio, such as «1.23.2»."""
        with self._asking("its version"):
            return str(self._sdk.versions.get().release or "unknown")

    def create_project(self, title: str, label_config: str) -> Project:
        """A new project. Label Studio asks for a title of 3 to 50 characters."""
        with self._asking(f"a project titled «{title}»"):
            created = self._sdk.projects.create(title=title, label_config=label_config, request_options=ONCE)
        return self.project(created.id)

    def delete_project(self, project_id: int) -> None:
        """Deletes the project with all its tasks."""
        with self._asking(f"project {project_id}"):
            self._sdk.projects.delete(project_id)

    def set_model_version(self, project_id: int, model_version: str) -> None:
        """Makes `model_version` the one whose predictions people see.

        Label Studio refuses a version that is neither a backend's title nor that of a stored prediction.
        """
        with self._asking(f"model version {model_version} for project {project_id}"):
            self._sdk.projects.update(project_id, model_version=model_version)

    # Tasks

    def import_tasks(self, project_id: int, data: Iterable[Mapping[str, Any]]) -> list[int]:
        """Ids of the new tasks, in the order of their data."""
        ids: list[int] = []
        for chunk in chunks_of(data, ITEMS_PER_IMPORT):
            ids += self._import(project_id, json=[dict(item) for item in chunk])
        return ids

    def import_files(self, project_id: int, paths: Iterable[Path]) -> list[int]:
        """Ids of the new tasks, one per uploaded file, in the order of the paths."""
        ids: list[int] = []
        for chunk in chunks_of(paths, FILES_PER_IMPORT):
            with ExitStack() as open_files:
                parts = {
                    f"file{i}": (path.name, open_files.enter_context(path.open("rb"))) for i, path in enumerate(chunk)
                }
                ids += self._import(project_id, files=parts)
        return ids

    def tasks(self, project_id: int, *, page_size: int = 1000) -> Iterator[Task]:
        """The project's tasks by ascending id, fetched page by page: memory does not grow with their number."""
        for page in self._task_pages(project_id, "id,data", page_size):
            yield from (Task(task.id, dict(task.data or {})) for task in page)

    def model_versions(self, project_id: int) -> dict[str, int]:
        """The model versions whose predictions the project holds, and how many of each."""
        with self._asking(f"model versions of project {project_id}"):
            return {
                str(name): int(count)
                for name, count in self._request("GET", f"api/projects/{project_id}/model-versions/").items()
                if count
            }

    def delete_model_version(self, project_id: int, model_version: str) -> int:
        """Number of predictions of that version that were deleted.

        Label Studio forgets the project's own model version along with it, whatever that is: it is set again here
        unless it is the deleted one.
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
        """The project's ML backends in the order of their ids. Label Studio asks each its `/health` and `/setup`."""
        with self._asking(f"backends of project {project_id}"):
            found = [Backend.from_sdk(backend) for backend in self._sdk.ml.list(project=project_id)]
        return sorted(found, key=lambda backend: backend.id)

    def add_backend(self, project_id: int, *, url: str, title: str, user: str = "", password: str = "") -> Backend:
        """The backend, added to the project. Label Studio asks its `/health` and `/setup`, and makes its webhook."""
        fields = _backend_fields(project_id, url, title, user, password)
        with self._asking(f"the backend at {public_url(url)}"):
            return Backend.from_sdk(self._sdk.ml.create(**fields, request_options=ONCE))

    def update_backend(
        self, backend_id: int, project_id: int, *, url: str, title: str, user: str = "", password: str = ""
    ) -> Backend:
        """The backend with all of these set: with some left out, Label Studio answers 500."""
        fields = _backend_fields(project_id, url, title, user, password)
        with self._asking(f"the backend at {public_url(url)}"):
            return Backend.from_sdk(self._sdk.ml.update(backend_id, **fields))

    def remove_backend(self, backend_id: int) -> None:
        """Removes the backend; Label Studio leaves its webhook behind."""
        with self._asking(f"backend {backend_id}"):
            self._sdk.ml.delete(backend_id)

    def webhooks(self, project_id: int) -> list[Webhook]:
        """The project's webhooks in the order of their ids."""
        options = {"additional_query_parameters": {"project": project_id}}
        with self._asking(f"webhooks of project {project_id}"):
            found = [Webhook.from_sdk(webhook) for webhook in self._sdk.webhooks.list(request_options=options)]
        return sorted(found, key=lambda webhook: webhook.id)

    def ensure_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> bool:
        """Whether anything had to change so that exactly one webhook sends every event to `url` with these headers.

        Headers that somebody else added to it are kept.
        """
        present = [webhook for webhook in self.webhooks(project_id) if webhook.url == url]
        for double in present[1:]:
            self.remove_webhook(double.id)
        if present and present[0].sends_everything and present[0].has(headers):
            return len(present) > 1
        ours = {name.lower() for name in headers}
        kept = {k: v for k, v in (present[0].headers if present else {}).items() if k.lower() not in ours}
        fields: dict[str, Any] = {"url": url, "headers": kept | dict(headers), "is_active": True}
        fields |= {"send_payload": True, "send_for_all_actions": True}
        with self._asking(f"the webhook {public_url(url)}"):
            if present:
                self._sdk.webhooks.update(present[0].id, **fields)
            else:
                self._sdk.webhooks.create(project=project_id, **fields, request_options=ONCE)
        return True

    def remove_webhook(self, webhook_id: int) -> None:
        """Removes the webhook."""
        with self._asking(f"webhook {webhook_id}"):
            self._sdk.webhooks.delete(webhook_id)

    def why_refused(self, kind: Literal["backend", "webhook"], url: str) -> str:
        """Why Label Studio would not take the URL for a backend or a webhook; empty where it would.

        Nothing is created: the URL is checked although the request names a project that does not exist.
        """
        path = "api/ml/" if kind == "backend" else "api/webhooks/"
        with self._asking(f"the {kind} {public_url(url)}"):
            try:
                self._request("POST", path, json={"project": 0, "url": url}, request_options=ONCE)
            except ApiError as error:
                if error.status_code == 400 and isinstance(error.body, dict):
                    return reason_in(error.body.get("validation_errors", {}).get("url", []))
                if error.status_code in (403, 500):  # a blocked network, a host name that has no address
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
    no_auth = {"auth_method": "NONE", "basic_auth_user": ""}  # an empty password would be answered with 500
    return {"project": project_id, "url": url, "title": title} | (auth if user and password else no_auth)
