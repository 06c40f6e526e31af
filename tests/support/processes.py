"""Clapboard's own processes, real ones: `clapboard serve`, `worker`, `up` and one-off commands on one state folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from clapboard.settings import Settings, env_name
from clapboard.store import Store
from tests.support.fixtures_services import REPOSITORY, free_port

START_S = 60.0
STOP_S = 20.0
WAIT_S = 20.0
SERVING = '"message": "serving '  # what a worker logs once it listens

T = TypeVar("T")


def wait_for(found: Callable[[], T], what: str, timeout_s: float = WAIT_S) -> T:
    """The first true thing that `found` returns; fails after `timeout_s`, saying what didn't happen."""
    deadline = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"in {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return value


class Running:
    """A process of Clapboard's with all that it started, and the file that takes its output."""

    def __init__(self, command: Sequence[str], env: dict[str, str], log_file: Path) -> None:
        self.log_file = log_file
        with log_file.open("wb") as log:
            # A session of its own, so that a supervised worker can be found and ended with it.
            self._process = subprocess.Popen(
                command, cwd=log_file.parent, env=env, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process itself still runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it wrote so far."""
        return self.log_file.read_text("utf-8", "replace")

    def children(self) -> list[int]:
        """Numbers of the processes that it started and that still run."""
        listings = Path(f"/proc/{self.pid}/task").glob("*/children")  # each thread has its own
        return [int(number) for listing in listings for number in listing.read_text().split()]

    def wait_for_log(self, text: str, timeout_s: float = START_S) -> None:
        """Until it has written the text."""

        def written() -> bool:
            assert self.is_alive or text in self.log, f"{self.log_file.name} ended too early:\n{self.log}"
            return text in self.log

        wait_for(written, f"{self.log_file.name} wrote nothing with {text!r}", timeout_s)

    def kill(self) -> None:
        """SIGKILL to the process alone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self._process.terminate()
        return self._process.wait(STOP_S)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Its exit status."""
        return self._process.wait(timeout_s)

    def end(self) -> None:
        """SIGKILL to it and to all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Backend:
    """A running backend and a client of it."""

    def __init__(self, process: Running, client: httpx.Client) -> None:
        self.process = process
        self.client = client

    def setup(self, label_config: str, project: Any = "1.1", **others: Any) -> httpx.Response:
        """`/setup` as Label Studio sends it."""
        sent = {
            "project": project,
            "schema": label_config,
            "hostname": "http://localhost:8080",
            "access_token": "t0k3n",
        }
        return self._post("/setup", sent | {"extra_params": None} | others)

    def predict(self, label_config: str, tasks: Sequence[dict[str, Any]], project: Any = "1.1") -> httpx.Response:
        """`/predict` as Label Studio sends it."""
        params = {"login": None, "password": None, "context": None}
        sent = {"tasks": list(tasks), "project": project, "label_config": label_config, "params": params}
        return self._post("/predict", sent)

    def results(self, label_config: str, tasks: Sequence[dict[str, Any]], project: Any = "1.1") -> list[Any]:
        """The entries that `/predict` answers."""
        answer = self.predict(label_config, tasks, project)
        assert answer.status_code == 200, answer.text
        found = answer.json()["results"]
        assert len(found) == len(tasks)
        return list(found)

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        # In ASCII, as Label Studio sends it: httpx can't encode half a surrogate pair.
        return self.client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})


class Installation:
    """Context manager: one state folder, and every process that is started on it, all ended with it."""

    def __init__(self, folder: Path, model: Path | str, **settings: Any) -> None:
        """`settings` are named as in `Settings`."""
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        chosen = {"model": str(model), "model_dir": folder / "state", "device": "cpu"} | settings
        chosen.setdefault("engine", "torch")  # there in a third of the time that OpenVINO takes to compile
        self._env = {name: value for name, value in os.environ.items() if name not in _OURS} | _named(chosen)
        self._env |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.settings = Settings(**{env_name(field): value for field, value in chosen.items()})
        self._started: list[Running] = []
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        for process in self._started:
            process.end()
        if "store" in vars(self):
            self.store.close()

    @cached_property
    def store(self) -> Store:
        """The store that the processes share, opened by the test too."""
        return Store.open(self.settings)

    @property
    def logs(self) -> str:
        """What all the processes wrote so far."""
        return "".join(process.log for process in self._started)

    def start(self, *arguments: str, **settings: Any) -> Running:
        """`clapboard …` in the background, with further settings."""
        log_file = self.folder / f"{len(self._started)}-{arguments[0]}.log"
        process = Running([*_COMMAND, *arguments], self._env | _named(settings), log_file)
        self._started.append(process)
        return process

    def serve(self, command: str = "serve", *, port: int = 0, **settings: Any) -> Backend:
        """A backend that answers; `command` may be `up`. Without a port it takes a free one."""
        port = port or free_port()
        process = self.start(command, port=port, **settings)
        user, password = settings.get("basic_auth_user"), settings.get("basic_auth_pass", "")
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            auth=(user, password) if user else None,
            timeout=60,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )
        self._clients.append(client)
        process.wait_for_log("Uvicorn running")
        return Backend(process, client)

    def worker(self, *arguments: str, **settings: Any) -> Running:
        """A worker that has loaded its model and listens."""
        process = self.start("worker", *arguments, **settings)
        process.wait_for_log(SERVING)
        return process

    def run(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """`clapboard …` to its end."""
        return subprocess.run(
            [*_COMMAND, *arguments],
            cwd=self.folder,
            env=self._env | _named(settings),
            capture_output=True,
            text=True,
            timeout=START_S,
        )

    def jobs(self, *arguments: str) -> list[dict[str, Any]]:
        """What `clapboard jobs --json` lists."""
        done = self.run("jobs", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["jobs"])


_COMMAND = (sys.executable, "-m", "clapboard")
_OURS = {env_name(field) for field in Settings.model_fields}


def _named(settings: dict[str, Any]) -> dict[str, str]:
    return {env_name(field): str(value) for field, value in settings.items()}
