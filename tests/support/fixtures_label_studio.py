"""A real Label Studio for the tests, and small servers that play the parts around it."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.settings import Settings
from demo.label_studio_server import LabelStudioServer, is_installed
from tests.support.waiting import wait_for

CHOICES = """
<View>
  <Audio name="audio" value="$audio"/>
  <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
</View>
"""


def needs_label_studio() -> None:
    """Where Label Studio is not installed, the test is skipped; in CI (the environment names CI), it fails instead."""
    if is_installed():
        return
    missing = "Label Studio is not installed: run `make install`"
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A Label Studio that all tests of the session share: each makes projects of its own."""
    needs_label_studio()
    with LabelStudioServer(tmp_path_factory.mktemp("label-studio")) as server:
        yield server


def settings_for(url: str, token: str, **others: Any) -> Settings:
    """Settings as an operator of that Label Studio would make them."""
    return Settings(LABEL_STUDIO_URL=url, LABEL_STUDIO_API_KEY=token, **others)


@pytest.fixture
def label_studio_client(label_studio: LabelStudioServer) -> Iterator[LabelStudioClient]:
    """A client of the real Label Studio."""
    with LabelStudioClient(settings_for(label_studio.url, label_studio.token)) as client:
        yield client


@pytest.fixture
def label_studio_api(label_studio: LabelStudioServer) -> Iterator[httpx.Client]:
    """Label Studio's API without our client: for what other people do there."""
    headers = {"Authorization": f"Token {label_studio.token}"}
    with httpx.Client(base_url=label_studio.url, headers=headers, timeout=60, trust_env=False) as api:
        yield api


@pytest.fixture
def two_choices(label_studio_client: LabelStudioClient) -> Iterator[Project]:
    """An empty project of `CHOICES`, deleted afterwards."""
    project = label_studio_client.create_project("Two choices", CHOICES)
    yield project
    label_studio_client.delete_project(project.id)


def prediction(task: int, model_version: str = "v1", score: float = 0.5, choice: str = "dog") -> dict[str, Any]:
    """An item for `push_predictions` that suits `CHOICES`."""
    value = {"choices": [choice]}
    result = {"id": "c1", "from_name": "clip", "to_name": "audio", "type": "choices", "value": value, "score": score}
    return {"task": task, "model_version": model_version, "score": score, "result": [result]}


@dataclass
class Request:
    """A request as a `Loopback` server received it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def credentials(self) -> str:
        """`user:password` of its basic auth; empty without."""
        kind, _, encoded = self.headers.get("authorization", "").partition(" ")
        return base64.b64decode(encoded).decode() if kind == "Basic" else ""


@dataclass
class Loopback:
    """Context manager: an HTTP server on loopback that records every request and answers with `answer(request)`.

    `answer` returns a status, a content type and a body: text, or what is sent as JSON; for a redirect, its target.
    """

    answer: Callable[[Request], tuple[int, str, Any]]
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def received(self, path: str) -> list[Request]:
        """The requests for that path so far."""
        return [request for request in list(self.requests) if request.path == path]

    def wait_for(self, path: str, is_wanted: Callable[[Request], bool]) -> Request:
        """The first such request, also where it has yet to come."""
        return wait_for(lambda: next(filter(is_wanted, self.received(path)), None), f"no such request for {path}")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.loads(content) if headers.get("content-type", "").startswith("application/json") else None
                url = urlsplit(self.path)
                request = Request(self.command, url.path, dict(parse_qsl(url.query)), headers, body)
                loopback.requests.append(request)
                status, content_type, answer = loopback.answer(request)
                encoded = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                if 300 <= status < 400:
                    self.send_header("Location", answer)
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # the names that http.server calls

            def log_message(self, *_: object) -> None:
                """Nothing: the requests are recorded."""

        return Handler


class RecordingBackend(Loopback):
    """A tiny ML backend: `/setup` answers `model_version`, `/predict` a suggestion per task; all but health may ask
    for credentials."""

    def __init__(self, model_version: str, credentials: str = "") -> None:
        super().__init__(self._answer)
        self.model_version = model_version
        self.credentials = credentials
        self.on_request: Callable[[Request], int | None] = lambda _request: None  # a status to fail with, if any

    def events(self) -> list[str]:
        """The actions that came to the webhook so far."""
        return [request.body["action"] for request in self.received("/webhook")]

    def _answer(self, request: Request) -> tuple[int, str, Any]:
        if status := self.on_request(request):
            return status, "application/json", {"detail": "not now"}
        if request.path != "/health" and request.credentials != self.credentials:
            return 401, "application/json", {"detail": "credentials are missing or wrong"}
        if request.path == "/setup":
            return 200, "application/json", {"model_version": self.model_version}
        if request.path == "/predict":
            tasks = [task["id"] for task in request.body["tasks"]]
            results = [prediction(task, self.model_version, (task % 10) / 10) for task in tasks]
            return 200, "application/json", {"results": results, "model_version": self.model_version}
        return 200, "application/json", {"status": "UP"}
