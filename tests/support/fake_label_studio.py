"""The part of Label Studio's API that pushes use, on loopback: with its carelessness, and with failures on demand.

As measured on 1.23.2: predictions are stored unvalidated, also a second one of one version, and an import drops those
for tasks that don't exist without a word.
"""

from __future__ import annotations

import itertools
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

TOKEN = "0123456789abcdef0123456789abcdef01234567"
CHOICES = """
<View>
  <Audio name="audio" value="$audio"/>
  <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
</View>
"""


class FakeLabelStudio:
    """Context manager. Fields may be changed while it runs."""

    def __init__(self, certificate: Path | None = None) -> None:
        """With a certificate, and its key in the same file, it speaks TLS."""
        self._certificate = certificate
        self.tasks: dict[int, dict[int, dict[str, Any]]] = {}  # project → task → its data
        self.stored: list[dict[str, Any]] = []  # predictions, in the order in which they came
        self.is_down = False  # every connection breaks off
        self.label_config = CHOICES
        self.shown: dict[int, str] = {}  # project → its model version
        self.backends: dict[int, dict[str, Any]] = {}  # project → its backend
        self.webhooks: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.down_at = ""  # it goes down when it is asked this: method and the beginning of a path
        self.setup: Callable[[int], str] = lambda _project: ""  # what the project's backend answers
        self.annotations: dict[int, dict[str, Any]] = {}  # by id
        self.asked: list[str] = []  # method and path of every request
        self.sampling = "Sequential sampling"
        self.annotations_per_task = 1
        self.on_changed: Callable[[], object] = lambda: None  # called before each change of a prediction
        self.on_stored: Callable[[], object] = lambda: None  # called after each import of predictions
        self.on_backend_set: Callable[[dict[str, Any]], object] = lambda _backend: (
            None
        )  # called after each change of it
        self.num_unheard = 0  # how many more times the backend doesn't say in time that it is up
        self.store_delay_s = 0.0
        self.hang_after_storing = threading.Event()
        self.has_stored = threading.Event()
        self._ended = threading.Event()
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self._server.server_port}"

    def add_tasks(self, project: int, *tasks: dict[str, Any]) -> None:
        """The project has these tasks (too)."""
        self.tasks.setdefault(project, {}).update({task["id"]: task["data"] for task in tasks})

    def connect(self, project: int, url: str) -> None:
        """The project exists and has a backend at the URL."""
        self.tasks.setdefault(project, {})
        self.backends[project] = {"id": 100 + project, "project": project, "url": url, "title": "", "state": "CO"}

    def versions(self, project: int) -> dict[str, int]:
        """How many predictions of each version the project holds."""
        with self._turn:
            return dict(Counter(one["model_version"] for one in self.stored if one["task"] in self.tasks[project]))

    def count(self, model_version: str, *tasks: int) -> dict[int, int]:
        """How many predictions of the version each of the tasks has."""
        with self._turn:
            found = Counter(stored["task"] for stored in self.stored if stored["model_version"] == model_version)
        return {task: found[task] for task in tasks}

    def store(self, item: dict[str, Any]) -> bool:
        """Whether the prediction's task exists; if so, it is stored."""
        with self._turn:
            exists = any(item["task"] in tasks for tasks in self.tasks.values())
            if exists:
                self.stored.append(item | {"id": next(self._numbers)})
            return exists

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if fake.is_down:
                    self.close_connection = True
                    return
                if self.headers.get("authorization") != f"Token {TOKEN}":
                    status, answer = 401, {"detail": "Invalid token."}
                else:
                    url = urlsplit(self.path)
                    fake.asked.append(f"{self.command} {url.path}")
                    fake.is_down |= bool(fake.down_at) and fake.asked[-1].startswith(fake.down_at)
                    if fake.is_down:
                        self.close_connection = True
                        return
                    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                    status, answer = fake._answer(
                        self.command, url.path.strip("/").split("/")[1:], query, json.loads(body or "null")
                    )
                if fake.is_down:  # meanwhile
                    self.close_connection = True
                    return
                content = b"" if status == 204 else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # whoever asked was killed meanwhile
                    self.close_connection = True

            # the names that http.server calls
            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler

    def _answer(self, method: str, path: list[str], query: dict[str, str], body: Any) -> tuple[int, Any]:
        match method, path:
            case "GET", ["version"]:
                return 200, {"release": "1.23.2"}
            case "GET", ["current-user", "whoami"]:
                return 200, {"id": 1, "email": "annotator@example.org"}
            case "GET", ["users"]:
                return 200, [{"id": 1, "first_name": "Ann", "last_name": "Lee", "email": "annotator@example.org"}]
            case "GET", ["projects", number] if int(number) in self.tasks:
                return 200, self._project(int(number))
            case "PATCH", ["projects", number] if int(number) in self.tasks:
                return self._show(int(number), body["model_version"])
            case "GET", ["projects", number, "model-versions"]:
                return 200, self.versions(int(number))
            case "DELETE", ["projects", number, "model-versions"]:
                return 200, {"deleted_predictions": self._delete_version(int(number), body["model_version"])}
            case "GET", ["ml"]:
                found = self.backends.get(int(query["project"]))
                return 200, [self._backend(found)] if found else []
            case "POST", ["ml"]:  # of project 0, to hear what it thinks of the address
                return 400, {"validation_errors": {"project": ["Invalid pk"]}}
            case "PATCH", ["ml", _] if self.num_unheard:
                self.num_unheard -= 1
                because = f"Can't connect to ML backend {body['url']}, health check failed. Make sure it is up."
                return 400, {"validation_errors": {"non_field_errors": [because]}}
            case "PATCH", ["ml", number]:
                backend = self.backends[int(number) - 100]
                answer = self._backend(backend, title=body["title"])
                self.on_backend_set(backend)
                return 200, answer
            case "GET", ["webhooks"]:
                return 200, [one for one in self.webhooks if one["project"] == int(query["project"])]
            case "DELETE", ["ml", number]:
                return 204, self.backends.pop(int(number) - 100, None)
            case "DELETE", ["webhooks", number]:
                self.webhooks = [one for one in self.webhooks if one["id"] != int(number)]
                return 204, None
            case "GET", ["dm", "views"]:
                return 200, [one for one in self.views if one["project"] == int(query["project"])]
            case "DELETE", ["dm", "views", number]:
                self.views = [one for one in self.views if one["id"] != int(number)]
                return 204, None
            case "GET", ["annotations", number] if int(number) in self.annotations:
                return 200, self.annotations[int(number)]
            case "GET", ["tasks"]:
                return 200, self._task_page(query)
            case "GET", ["predictions"]:
                with self._turn:
                    return 200, [one for one in self.stored if one["task"] == int(query["task"])]
            case "PATCH", ["predictions", number]:
                return self._change_prediction(int(number), body)
            case "DELETE", ["predictions", number]:
                return self._change_prediction(int(number), None)
            case "POST", ["predictions"]:
                return (201, body) if self._receive([body]) else (400, {"detail": "no such task"})
            case "POST", ["projects", _, "import", "predictions"]:
                return 201, {"created": self._receive(body)}
        return 404, {"detail": "Not found."}

    def _project(self, project: int) -> dict[str, Any]:
        return {
            "id": project,
            "title": f"Project {project}",
            "label_config": self.label_config,
            "model_version": self.shown.get(project),
            "task_number": len(self.tasks[project]),
            "show_collab_predictions": True,
            "maximum_annotations": self.annotations_per_task,
            "sampling": self.sampling,
            "total_annotations_number": len(self.annotations),
            "skipped_annotations_number": 0,
        }

    def _show(self, project: int, model_version: str) -> tuple[int, Any]:
        """Label Studio takes no version that nothing in the project bears."""
        bearers = {self.backends.get(project, {}).get("title"), *self.versions(project)}
        if model_version not in bearers:
            return 400, {"validation_errors": {"model_version": ["no such version"]}}
        self.shown[project] = model_version
        return 200, self._project(project)

    def _delete_version(self, project: int, model_version: str) -> int:
        """It forgets which version the project shows, whatever that is."""
        with self._turn:
            kept = [
                one
                for one in self.stored
                if one["model_version"] != model_version or one["task"] not in self.tasks[project]
            ]
            num_deleted = len(self.stored) - len(kept)
            self.stored = kept
            self.shown.pop(project, None)
        return num_deleted

    def _change_prediction(self, number: int, fields: dict[str, Any] | None) -> tuple[int, Any]:
        """With other fields, or deleted."""
        self.on_changed()
        with self._turn:
            found = [one for one in self.stored if one["id"] == number]
            if not found:
                return 404, {"detail": "Not found."}
            if fields is None:
                self.stored.remove(found[0])
            else:
                found[0].update(fields)
        return 200, found[0]

    def _backend(self, backend: dict[str, Any], title: str = "") -> dict[str, Any]:
        """The record; Label Studio asks the backend its version each time, and shows what bore the old title anew."""
        project = backend["project"]
        if title and self.shown.get(project) == backend["title"]:
            self.shown[project] = title
        backend |= {"title": title or backend["title"], "model_version": self.setup(project)}
        return backend

    def _task_page(self, query: dict[str, str]) -> dict[str, Any]:
        asked = json.loads(query["query"])
        behind = asked["filters"]["items"][0]["value"]
        chosen = asked.get("selectedItems", {}).get("included")
        found = [
            {"id": task, "data": data}
            for task, data in sorted(self.tasks[int(query["project"])].items())
            if task > behind and (chosen is None or task in chosen)
        ]
        if "annotations" in query["include"]:
            by_task = {
                task["id"]: [one for one in self.annotations.values() if one["task"] == task["id"]] for task in found
            }
            found = [task | {"annotations": by_task[task["id"]]} for task in found if by_task[task["id"]]]
        page = found[: int(query["page_size"])]
        if "predictions" in query["include"]:
            with self._turn:
                for task in page:
                    task["predictions"] = [stored for stored in self.stored if stored["task"] == task["id"]]
        return {"tasks": page, "total": len(found), "total_annotations": 0, "total_predictions": 0}

    def _receive(self, items: list[dict[str, Any]]) -> int:
        time.sleep(self.store_delay_s)
        num_stored = sum(map(self.store, items))
        self.has_stored.set()
        self.on_stored()
        if self.hang_after_storing.is_set():
            self._ended.wait(60)
        return num_stored
