"""The servers that all processes of a test run share. `server_keeper` starts each when it is first asked for."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.programs import REPOSITORY
from tests.support.run_folder import run_folder

ENVIRONMENT = dict(os.environ)
"""The environment that the run began with: what tests change in theirs is not for servers that all share."""

_STOP_S = 60.0


class RunServers:
    """A connection to the keeper of the run's servers, which stops them after the last connection has ended."""

    current: ClassVar[RunServers | None] = None
    """This process's, while pytest runs."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the same one for all processes of the run."""
        self._folder = folder
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()

    def ask(self, server: str) -> dict[str, Any]:
        """How to reach the server: `address`, and a `number` that nobody else gets. Starts it if it doesn't run."""
        with self._lock:
            connection = self._connection = self._connection or self._connect_or_start()
            connection.sendall(json.dumps({"server": server}).encode() + b"\n")
            with connection.makefile() as answers:
                line = answers.readline()
        answer: dict[str, Any] = json.loads(line or '{"error": "the keeper of the servers has ended"}')
        assert "error" not in answer, answer["error"]
        return answer

    def close(self) -> None:
        """End the connection; if it is the last one, return when the servers have stopped."""
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_WR)
            self._connection.settimeout(_STOP_S)
            self._connection.recv(1)
            self._connection.close()

    def _connect_or_start(self) -> socket.socket:
        with (self._folder / "servers.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._connect() or self._start()

    def _connect(self) -> socket.socket | None:
        address = self._folder / "servers.address"
        if not address.exists():
            return None
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address.read_text())
            if connection.recv(1):  # a keeper that is about to end greets nobody
                return connection
        except OSError:
            pass
        connection.close()
        return None

    def _start(self) -> socket.socket:
        command = [sys.executable, "-m", "tests.support.server_keeper", str(self._folder)]
        environment = ENVIRONMENT | {"PYTHONPATH": str(REPOSITORY)}
        with (self._folder / "servers.log").open("ab") as log:
            subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        connection = self._connect()
        assert connection is not None, (self._folder / "servers.log").read_text()
        return connection


@pytest.fixture(scope="session", autouse=True)
def run_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunServers]:
    """The servers that all processes of the run share."""
    servers = RunServers(run_folder(tmp_path_factory))
    RunServers.current = servers
    yield servers
    RunServers.current = None
    servers.close()
