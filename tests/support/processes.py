"""Clapboard's own processes, real ones: `clapboard serve`, `worker`, `up` and one-off commands on one state folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx

from clapboard.settings import Settings, env_name
from clapboard.store import Store
from tests.support.commands import Command, Process
from tests.support.programs import REPOSITORY, free_port
from tests.support.waiting import WAIT_S, wait_for
from tests.support.warm_python import command_environment

SERVING = '"message": "serving '  # what a worker logs once it listens


class Running:
    """A process of Clapboard's with all that it started, and the file that takes its output."""

    def __init__(self, command: Command, log_file: Path) -> None:
        self.log_file = log_file
        with log_file.open("wb") as log, Path(os.devnull).open("rb") as nothing:
            self._process = command.start(nothing.fileno(), log.fileno(), log.fileno())

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

    def wait_for_log(self, text: str, timeout_s: float = WAIT_S) -> None:
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
        return self._process.wait(WAIT_S)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Its exit status."""
        return self._process.wait(timeout_s)

    def end(self) -> None:
        """SIGKILL to it and to all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Terminal:
    """A process on a pseudo-terminal, 200 columns wide, and what it shows, without colours."""

    def __init__(self, start_on: Callable[[int], Process]) -> None:
        """`start_on` starts the process on the pseudo-terminal that it is given."""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self._process = start_on(theirs)
        os.close(theirs)
        self._shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All that was shown so far."""
        plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", self._shown)
        return plain.decode("utf-8", "replace").replace("\r\n", "\n")

    @property
    def log(self) -> str:
        """The same, as of a process without a terminal."""
        return self.text

    def wait_for(self, text: str, timeout_s: float = WAIT_S, *, times: int = 1) -> None:
        """Until it shows the text so many times, wherever lines end."""

        def shown() -> bool:
            is_there = " ".join(self.text.split()).count(text) >= times
            assert is_there or self._process.poll() is None, f"it ended too early:\n{self.text}"
            return is_there

        wait_for(shown, f"the terminal doesn't show {text!r}", timeout_s)

    def type(self, line: str) -> None:
        """The line and Enter."""
        os.write(self._ours, f"{line}\n".encode())

    def press_ctrl_c(self) -> None:
        """As a person does: the terminal sends SIGINT to what runs in front."""
        os.write(self._ours, b"\x03")

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Its exit status, once all that it wrote is read."""
        code = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def end(self) -> None:
        """SIGHUP to all, as when the window is closed, and SIGKILL to what doesn't mind it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            while piece := os.read(self._ours, 65_536):
                self._shown += piece


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

    def __init__(
        self,
        folder: Path,
        model: Path | str,
        *,
        modules: Path | None = None,
        as_typed: bool = False,
        **settings: Any,
    ) -> None:
        """`settings` are named as in `Settings`.

        `modules` is a folder where its processes find modules first. `as_typed` starts a Python for each process, where
        otherwise most are forks of the warm Python.
        """
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        chosen = {"model": str(model), "model_dir": folder / "state", "device": "cpu"} | settings
        chosen.setdefault("engine", "torch")  # there in a third of the time that OpenVINO takes to compile
        chosen.setdefault("predict_wait_s", 20)  # a busy machine takes longer than people are made to wait
        self._env = command_environment(os.environ) | _named(chosen)
        if modules:
            self._env["PYTHONPATH"] = os.pathsep.join([str(modules), str(REPOSITORY)])
        self._as_typed = as_typed
        self.settings = Settings(**{env_name(field): value for field, value in chosen.items()})
        self._started: list[Running | Terminal] = []
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
    def environment(self) -> dict[str, str]:
        """What its processes have in their environment."""
        return dict(self._env)

    @property
    def logs(self) -> str:
        """What all the processes wrote so far."""
        return "".join(process.log for process in self._started)

    def start(self, *arguments: str, **settings: Any) -> Running:
        """`clapboard …` in the background, with further settings."""
        log_file = self.folder / f"{len(self._started)}-{arguments[0]}.log"
        process = Running(self._command(arguments, settings), log_file)
        self._started.append(process)
        return process

    def on_a_terminal(self, *arguments: str, **settings: Any) -> Terminal:
        """`clapboard …` with a terminal of its own."""
        terminal = Terminal(self._command(arguments, settings, {"TERM": "xterm"}).start_on)
        self._started.append(terminal)
        return terminal

    def serve(self, command: str = "serve", *, port: int = 0, **settings: Any) -> Backend:
        """A backend that answers; `command` may be `up`. Without a port it takes a free one."""
        port = port or free_port()
        process = self.start(command, port=port, **settings)
        user, password = settings.get("basic_auth_user"), settings.get("basic_auth_pass", "")
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            auth=(user, password) if user else MadePassword(self),
            timeout=240,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )
        self._clients.append(client)
        process.wait_for_log("Clapboard is at ")
        return Backend(process, client)

    def worker(self, *arguments: str, **settings: Any) -> Running:
        """A worker that has loaded its model and listens."""
        process = self.start("worker", *arguments, **settings)
        process.wait_for_log(SERVING)
        return process

    def run(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """`clapboard …` to its end."""
        return self._command(arguments, settings).run()

    def jobs(self, *arguments: str) -> list[dict[str, Any]]:
        """What `clapboard jobs --json` lists."""
        done = self.run("jobs", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["jobs"])

    def _command(
        self, arguments: Sequence[str], settings: dict[str, Any], others: dict[str, str] | None = None
    ) -> Command:
        env = self._env | _named(settings) | (others or {})
        return Command(arguments, env, self.folder, as_typed=self._as_typed)


class MadePassword(httpx.Auth):
    """The password that `clapboard connect` made, once a backend asks for it."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """The request, and again with the password if there is one and it is asked for."""
        response = yield request
        if response.status_code == 401 and (made := self._installation.store.access.credentials()):
            yield from httpx.BasicAuth(made.user, made.password).auth_flow(request)


def _named(settings: dict[str, Any]) -> dict[str, str]:
    return {env_name(field): str(value) for field, value in settings.items()}
