"""A process that keeps the servers of a test run: `python -m tests.support.server_keeper FOLDER`.

It starts each server when a test first asks for it and stops them all when no pytest process is connected any more.
The kernel closes the connections of a process that ends, however it ends: a run that was killed leaves no servers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.support.postgres_server import running_postgres
from tests.support.redis_server import running_redis
from tests.support.warm_python import running_warm_python

FIRST_S = 60.0
_STOP_S = 30.0

SERVERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "postgresql": running_postgres,
    "redis": running_redis,
    "warm-python": running_warm_python,
}


class Keeper:
    """Starts servers for whoever is connected."""

    def __init__(self, listening: socket.socket, folder: Path) -> None:
        self._listening = listening
        self._folder = folder
        self._connected: set[socket.socket] = set()
        self._connected_lock = threading.Lock()
        self._addresses: dict[str, str] = {}
        self._locks = {name: threading.Lock() for name in SERVERS}
        self._numbers = {name: itertools.count(1) for name in SERVERS}
        self._servers = ExitStack()

    def run(self) -> None:
        """Return when everybody who was connected has gone, and the servers with them."""
        self._listening.settimeout(FIRST_S)
        with contextlib.suppress(OSError):  # nobody comes, or the last one has gone and the socket is shut
            while True:
                connection, _ = self._listening.accept()
                self._listening.settimeout(None)
                with self._connected_lock:
                    self._connected.add(connection)
                connection.sendall(b".")
                threading.Thread(target=self._serve, args=[connection]).start()

    def stop(self) -> None:
        """Stop all servers."""
        self._servers.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw") as lines:
            with contextlib.suppress(OSError):  # it was killed
                for line in lines:
                    lines.write(json.dumps(self._answer(json.loads(line)["server"])) + "\n")
                    lines.flush()
            with self._connected_lock:
                self._connected.remove(connection)
                if self._connected:
                    return
                self._listening.shutdown(socket.SHUT_RDWR)
            self.stop()

    def _answer(self, name: str) -> dict[str, object]:
        with self._locks[name]:
            try:
                if name not in self._addresses:
                    folder = self._folder / name
                    folder.mkdir(exist_ok=True)
                    self._addresses[name] = self._servers.enter_context(SERVERS[name](folder))
            except Exception:
                return {"error": traceback.format_exc()}
            return {"address": self._addresses[name], "number": next(self._numbers[name])}


def main() -> None:
    """Listen on a socket, write its path to `servers.address` in the given folder, and go on in the background."""
    # Not in the run's own folder: its path may be too long for a socket, and PostgreSQL's user may not enter it.
    folder = Path(tempfile.mkdtemp(prefix="clapboard-servers-"))
    folder.chmod(0o755)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    listening.listen()
    (Path(sys.argv[1]) / "servers.address").write_text(str(folder / "socket"), "utf-8")
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    keeper = Keeper(listening, folder)
    try:
        keeper.run()
    finally:
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(_STOP_S)
        keeper.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
