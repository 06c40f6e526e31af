"""The connection to Label Studio's API that every call shares: token, time-outs, failures, and pages of tasks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Literal, Self

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from clapboard.errors import LabelStudioError
from clapboard.label_studio.auth import is_personal_access_token
from clapboard.label_studio.failures import failures_as_ours
from clapboard.label_studio.records import Project
from clapboard.label_studio.tally import RequestTally, TalliedClient
from clapboard.settings import Settings

CONNECT_TIMEOUT_S = 5.0
IMPORT_TIMEOUT_S = 600.0

# For what must not happen twice: the SDK sends a request again after 5xx or a lost connection.
ONCE: Any = {"max_retries": 0}
IMPORT_ONCE: Any = {"max_retries": 0, "timeout": httpx.Timeout(IMPORT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)}


class LabelStudioSession:
    """Label Studio as the user whom the token belongs to. Safe to share between threads; close it, or use `with`.

    `tally` counts the requests. Raises `LabelStudioError` where the token is missing or expired: nothing is sent for
    that.
    """

    def __init__(
        self, settings: Settings, *, timeout_s: float = 60.0, max_retries: int = 2, tally: RequestTally | None = None
    ) -> None:
        self.url = settings.label_studio_url
        token = settings.label_studio_api_key.get_secret_value().strip()
        if not token:
            raise LabelStudioError("LABEL_STUDIO_API_KEY is not set: copy a token from «Account & Settings».")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise LabelStudioError("LABEL_STUDIO_API_KEY holds characters that no token has: copy it once more.")
        # Redirects are not followed: a POST would become a GET, and the token would go to another address.
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        self._http = TalliedClient(tally or RequestTally(), timeout=timeout, follow_redirects=False)
        with ExitStack() as on_failure, self._asking("the token"):
            on_failure.callback(self._http.close)
            # The slash keeps a path prefix of the URL when the SDK refreshes a personal token.
            self._sdk = LabelStudio(
                base_url=self.url + "/", api_key=token, httpx_client=self._http, max_retries=max_retries
            )
            on_failure.pop_all()
        self.token_kind: Literal["legacy", "personal"] = "personal" if is_personal_access_token(token) else "legacy"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def project(self, project_id: int) -> Project:
        """The project; raises `LabelStudioError` where it does not exist."""
        # All other fields together cost 0.2 s.
        fields = "id,title,label_config,model_version,task_number,show_collab_predictions,maximum_annotations"
        options = {"additional_query_parameters": {"include": fields}}
        with self._asking(f"project {project_id}"):
            return Project.from_sdk(self._sdk.projects.get(project_id, request_options=options))

    def _asking(self, subject: str) -> AbstractContextManager[None]:
        return failures_as_ours(self.url, subject)

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON that comes back for what the SDK has no method for; raises what the SDK raises."""
        response = self._sdk._client_wrapper.httpx_client.request(path, method=method, **arguments)
        if not response.is_success:
            is_json = response.headers.get("content-type", "").startswith("application/json")
            body = response.json() if is_json else response.text
            raise ApiError(status_code=response.status_code, headers=dict(response.headers), body=body)
        return response.json()

    def _task_pages(
        self, project_id: int, include: str, page_size: int, task_ids: Collection[int] | None = None
    ) -> Iterator[list[Any]]:
        """Pages of SDK tasks by ascending id; each starts behind the last id, so none is lost where tasks go away."""
        last_id = 0
        while True:
            behind = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": last_id}
            query: dict[str, Any] = {"filters": {"conjunction": "and", "items": [behind]}, "ordering": ["tasks:id"]}
            if task_ids is not None:
                query["selectedItems"] = {"all": False, "included": list(task_ids)}
            with self._asking(f"tasks of project {project_id}"):
                page = self._sdk.tasks.list(
                    project=project_id,
                    fields="all" if "predictions" in include else "task_only",
                    include=include,
                    page=1,
                    page_size=page_size,
                    query=json.dumps(query, separators=(",", ":")),
                    resolve_uri=False,
                    review=True,  # else listing makes Label Studio ask the backend, where the project is set so
                )
                tasks, num_left = page.items or [], int(page.response.total or 0)
            yield tasks
            if not tasks or len(tasks) >= num_left:
                return
            last_id = tasks[-1].id
