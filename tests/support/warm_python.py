"""A Python that has imported what Clapboard's commands import, and forks for each command that is to be run.

Importing torch and transformers takes a process most of the time until it works, and tests start many. A fork has
nothing but the imports: it gets the command's environment, folder, standard streams and process group, and then runs
`clapboard/__main__.py` as `python -m clapboard` does. Tests of the start itself start the command as typed.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import re
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clapboard.settings import Settings, env_name
from tests.support.programs import REPOSITORY, wait_until_ready
from tests.support.run_servers import ENVIRONMENT, RunServers

SETTINGS = frozenset(env_name(field) for field in Settings.model_fields)
"""Names of Clapboard's settings in the environment, which it reads when a command runs."""

PACKAGES = ("clapboard", "backend", "workers", "training")
LAZY = (
    "torch._dynamo",
    "torch.utils._sympy.functions",
    "transformers.models.clap.feature_extraction_clap",
    "transformers.models.clap.modeling_clap",
    "transformers.models.roberta.modeling_roberta",
    "transformers.models.roberta.tokenization_roberta",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "celery.app.trace",
    "celery.worker.consumer",
    "celery.concurrency.thread",
    "kombu.transport.redis",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
    "rich.progress",
    "rich.markup",
)
"""What the packages import only when a command needs it."""

_PR_SET_PDEATHSIG = 1
_SET_BY_LIBRARIES = re.compile(r"(KMP|TORCHINDUCTOR|CUDA)_\w+")
"""What torch, or scikit-learn, puts into the environment of this process, for itself, when it is imported."""

_READ_LATE = re.compile(r"PYTEST_\w+|TERM|COLUMNS|LINES")
"""Names in the environment that nothing reads while it is imported, beside Clapboard's own settings."""


def command_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What commands that tests start have in their environment, before any setting."""
    others = {
        name: value
        for name, value in environment.items()
        if name not in SETTINGS and (name in ENVIRONMENT or not _SET_BY_LIBRARIES.fullmatch(name))
    }
    return others | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def warm_address(environment: Mapping[str, str]) -> Path | None:
    """The socket of the run's warm Python, if a fork of it does what a process in that environment would."""
    if RunServers.current is None or _read_at_import(environment) != _read_at_import(command_environment(ENVIRONMENT)):
        return None
    return Path(RunServers.current.ask("warm-python")["address"])


class WarmProcess:
    """A command in a fork of the warm Python, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        address: Path,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: dict[str, str],
        streams: tuple[int, int, int],
        has_terminal: bool = False,
    ) -> None:
        """`streams` are the file descriptors of its standard streams; the process leads a session of its own."""
        self.args = ["clapboard", *arguments]
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(address))
        command = {"arguments": list(arguments), "cwd": str(cwd), "env": env, "has_terminal": has_terminal}
        content = json.dumps(command).encode()
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        self._connection.sendmsg([struct.pack("I", len(content))], passed)
        self._connection.sendall(content)
        self.pid = self._read()

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
                self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises `subprocess.TimeoutExpired` if it runs on for so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left_s = 1.0 if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            select.select([self._connection], [], [], min(left_s, 1.0))
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """A signal to the process alone, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self) -> int:
        content = self._connection.recv(4, socket.MSG_WAITALL)
        assert len(content) == 4, "the warm Python has ended"
        return int(struct.unpack("i", content)[0])

    def _end(self) -> None:
        self.returncode = self._read()
        self._connection.close()


@contextmanager
def running_warm_python(folder: Path) -> Iterator[str]:
    """The path of the socket where a warm Python takes commands as long as the context runs."""
    address = folder / "socket"
    command = [sys.executable, "-m", "tests.support.warm_python", str(address)]
    environment = command_environment(os.environ)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until_ready(address.exists, process, folder / "log")
        yield str(address)
    finally:
        process.kill()  # and the kernel all that it has forked
        process.wait()


class _Server:
    """Takes commands from the socket, one a connection, and forks."""

    def __init__(self, address: Path) -> None:
        self._selector = selectors.DefaultSelector()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(address))
        self._listening.listen(64)
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._waking, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waking, False)
        self._selector.register(self._waking, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken)
        self._clients: dict[int, socket.socket] = {}  # by the number of the process

    def next_command(self) -> dict[str, Any]:
        """Returns in a fork, with the command that it is to run; goes on for ever in this process."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listening:
                    connection, _ = self._listening.accept()
                    command, streams = _received(connection)
                    pid = os.fork()
                    if pid == 0:
                        self._close_all(connection)
                        _become(command, streams)
                        return command
                    for stream in streams:
                        os.close(stream)
                    self._clients[pid] = connection
                    self._selector.register(connection, selectors.EVENT_READ)
                    connection.sendall(struct.pack("i", pid))
                elif key.fileobj == self._waking:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._waking, 4096)
                    self._reap()
                else:  # nobody waits for it any more
                    self._end(next(pid for pid, client in self._clients.items() if client is key.fileobj))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                client = self._clients.pop(pid)
                with contextlib.suppress(KeyError):
                    self._selector.unregister(client)
                with contextlib.suppress(OSError):
                    client.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
                client.close()

    def _end(self, pid: int) -> None:
        self._selector.unregister(self._clients[pid])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _close_all(self, connection: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for open_one in (self._listening, connection, *self._clients.values()):
            open_one.close()
        os.close(self._waking)
        os.close(self._woken)


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The command that came through the connection, and its standard streams."""
    header, passed, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(passed[0][2])
    content = connection.recv(struct.unpack("I", header)[0], socket.MSG_WAITALL)
    return json.loads(content), list(streams)


def _become(command: dict[str, Any], streams: list[int]) -> None:
    """Make this fork what the command would be if it had been started by itself."""
    _end_with_parent()
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if command["has_terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["env"])
    sys.path[0] = command["cwd"]
    tempfile.tempdir = None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _open_stream(number, name)


def _open_stream(number: int, name: str) -> None:
    """The stream as Python opens it at its start: a new buffer, by lines on a terminal and for errors."""
    before = getattr(sys, name)
    by_lines = name == "stderr" or os.isatty(number)
    stream = open(  # noqa: SIM115  # as long as the process
        number,
        "r" if name == "stdin" else "w",
        buffering=1 if by_lines else -1,
        encoding=before.encoding,
        errors=before.errors,
        closefd=False,
    )
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def _end_with_parent() -> None:
    """The kernel kills this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in environment.items() if name not in SETTINGS and not _READ_LATE.fullmatch(name)
    }


def _import_all() -> None:
    names = [*LAZY]
    for package in PACKAGES:
        modules = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        names += [module.name for module in modules if not module.name.endswith("__main__")]
    for name in names:
        with contextlib.suppress(ImportError):  # it needs a package that isn't installed
            importlib.import_module(name)


def main() -> None:
    """Fork for each command that comes through the socket whose path is given."""
    _import_all()
    gc.collect()
    gc.freeze()  # or each fork would copy what its collector looks at
    command = _Server(Path(sys.argv[1])).next_command()
    sys.argv[1:] = command["arguments"]
    runpy.run_module("clapboard", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
