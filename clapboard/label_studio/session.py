"""What all calls to Label Studio's API share: the connection, token, time-outs, errors, and pages of tasks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Literal, Self

import httpx
from label_studio_sdk.base_client import LabelStudioBase  # not `LabelStudio`, whose extensions import pandas
from label_studio_sdk.core.api_error import ApiError

from clapboard.errors import LabelStudioError, RequestError
from clapboard.label_studio.auth import is_personal_access_token
from clapboard.label_studio.failures import label_studio_errors
from clapboard.label_studio.records import Project
from clapboard.label_studio.tally import RequestTally, TalliedClient
from clapboard.settings import Settings
from clapboard.settings.certificates import trusted_authorities
from clapboard.untrusted import identifier, read_json

CONNECT_TIMEOUT_S = 5.0
IMPORT_TIMEOUT_S = 600.0

# For requests that must not be repeated; by default the SDK does so after 5xx or a lost connection.
ONCE: Any = {"max_retries": 0}
IMPORT_ONCE: Any = {"max_retries": 0, "timeout": httpx.Timeout(IMPORT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)}


class LabelStudioSession:
    """A connection to Label Studio as the token's user. Threads may share it; close it, or use `with`.

    `tally` counts the requests. Raises `LabelStudioError` if the token is missing, malformed or expired, without
    sending anything.
    """

    def __init__(
        self, settings: Settings, *, timeout_s: float = 60.0, max_retries: int = 2, tally: RequestTally | None = None
    ) -> None:
        self.url = settings.label_studio_url
        token = settings.label_studio_api_key.get_secret_value().strip()
        if not token:
            raise LabelStudioError("LABEL_STUDIO_API_KEY is not set: copy a token from «Account & Settings».")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise LabelStudioError("LABEL_STUDIO_API_KEY has characters that no token has: copy it again.")
        # Redirects are not followed: a POST would become a GET, and the token would go to another address.
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        authorities = trusted_authorities(settings)
        self._http = TalliedClient(tally or RequestTally(), timeout=timeout, follow_redirects=False, verify=authorities)
        with ExitStack() as on_failure, self._asking("the token"):
            on_failure.callback(self._http.close)
            # The slash keeps a path prefix of the URL when the SDK refreshes a personal token.
            self._sdk = LabelStudioBase(
                base_url=self.url + "/", api_key=token, httpx_client=self._http, max_retries=max_retries
            )
            on_failure.pop_all()
        self.token_kind: Literal["legacy", "personal"] = "personal" if is_personal_access_token(token) else "legacy"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def project(self, project_id: int) -> Project:
        """The project. Raises `LabelStudioLacks` if it doesn't exist."""
        # The other fields would take 0.2 s.
        fields = "id,title,label_config,model_version,task_number,show_collab_predictions,maximum_annotations,sampling"
        options = {"additional_query_parameters": {"include": fields}}
        with self._asking(f"project {project_id}"):
            return Project.from_sdk(self._sdk.projects.get(project_id, request_options=options))

    def _asking(self, subject: str) -> AbstractContextManager[None]:
        return label_studio_errors(self.url, subject)

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON answer to a request for which the SDK has no method; None if empty. Raises what the SDK raises."""
        response = self._sdk._client_wrapper.httpx_client.request(path, method=method, **arguments)
        if not response.is_success:
            is_json = response.headers.get("content-type", "").startswith("application/json")
            body = response.json() if is_json else response.text
            raise ApiError(status_code=response.status_code, headers=dict(response.headers), body=body)
        try:
            return read_json(response.content) if response.content else None
        except RequestError:
            raise ValueError("not JSON, or nested too deeply") from None

    def _task_pages(
        self,
        project_id: int,
        include: str,
        page_size: int,
        task_ids: Collection[int] | None = None,
        *,
        after: int = 0,
    ) -> Iterator[list[Any]]:
        """Pages of tasks by ascending id, as the API has them; the caller must validate their content.

        Each page starts after the previous one's last id, so that no task is missed if others are deleted meanwhile.
        """
        last_id = after
        while True:
            is_later = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": last_id}
            query: dict[str, Any] = {"filters": {"conjunction": "and", "items": [is_later]}, "ordering": ["tasks:id"]}
            if task_ids is not None:
                query["selectedItems"] = {"all": False, "included": list(task_ids)}
            with self._asking(f"tasks of project {project_id}"):
                answer = self._request(
                    "GET",
                    "api/tasks/",
                    params={
                        "project": project_id,
                        "fields": "all" if "predictions" in include else "task_only",
                        "include": include,
                        "page": 1,
                        "page_size": page_size,
                        "query": json.dumps(query, separators=(",", ":")),
                        "resolve_uri": "false",
                        "review": "true",  # without it Label Studio may ask the backend for predictions
                    },
                )
                tasks, num_left = list(answer["tasks"]), int(answer["total"])
                last_id = last_id_of(tasks, last_id) if 0 < len(tasks) < num_left else last_id
            yield tasks
            if not tasks or len(tasks) >= num_left:
                return


def last_id_of(tasks: Iterable[Any], before: int) -> int:
    """The greatest id in a page. Raises `ValueError` unless it is above `before`, which would repeat the page."""
    ids = [identifier(task.get("id")) for task in tasks if isinstance(task, Mapping)]
    last = max((task_id for task_id in ids if task_id is not None), default=before)
    if last <= before:
        raise ValueError(f"a page without an id above {before}")
    return last
