"""Our side of the fork server: starts it when a decoder is first needed, and anew if it is gone."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clapboard.audio.confined import messages
from clapboard.errors import InternalError

START_S = 120.0
"""How long a fork server may take to start, on a machine under load."""

_CLOSE_S = 5.0
_DECODE = "clapboard.audio.mono:mono_blocks"
# What a Python needs to find itself and its libraries. Nothing else of our environment reaches a decoder.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL")


@dataclass(frozen=True)
class Fork:
    """A decoder's process, by its number, and the fork server's that it came from."""

    pid: int
    server_pid: int


class ForkServer:
    """Forks decoders. Threads share it."""

    def __init__(self, decode: str = _DECODE) -> None:
        """`decode` is the function that decoders run, as module:name."""
        self._decode = decode
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start its process if it doesn't run. Returns at once."""
        with self._lock:
            self._started()

    def fork(self, connection: socket.socket, memory: int) -> Fork:
        """A new decoder with this end of a socket, and shared memory by its descriptor.

        Raises `InternalError` if the server can't be started.
        """
        with self._lock:
            try:
                return self._fork(connection, memory)
            except InternalError:  # the server was lost since the last time
                return self._fork(connection, memory)

    def end(self, fork: Fork) -> int | None:
        """Kill a decoder if it is alive. How it ended: its exit status, negative for a signal; None if nobody knows."""
        with self._lock:
            if self._control is None or self._process is None or self._process.pid != fork.server_pid:
                return None  # its server is gone, and all decoders with it
            with contextlib.suppress(InternalError):
                return os.waitstatus_to_exitcode(self._ask(self._control, messages.END, fork.pid, []))
            return None

    def close(self) -> None:
        """End the process, and all decoders with it."""
        with self._lock:
            self._close()

    def abandon(self) -> None:
        """Let go of it in a fork of this process: it goes on serving the process that started it."""
        self._lock = threading.Lock()
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.returncode = 0  # it isn't a child of ours, to be waited for
        self._control = self._process = None

    def _fork(self, connection: socket.socket, memory: int) -> Fork:
        control, process = self._started()
        pid = self._ask(control, messages.FORK, 0, [connection.fileno(), memory])
        return Fork(pid, process.pid)

    def _ask(self, control: socket.socket, command: bytes, pid: int, descriptors: Sequence[int]) -> int:
        try:
            socket.send_fds(control, [messages.COMMAND.pack(command, pid)], descriptors)
            answer = control.recv(messages.ANSWER.size)
        except OSError:
            answer = b""
        if len(answer) < messages.ANSWER.size:
            code = self._close()
            raise InternalError(f"The server of the audio decoders ended with code {code}: try again.")
        return int(messages.ANSWER.unpack(answer)[0])

    def _started(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        if self._control is None or self._process is None:
            self._control, self._process = _start(self._decode)
        return self._control, self._process

    def _close(self) -> int | None:
        """Its exit status, if it ran."""
        control, process = self._control, self._process
        self._control = self._process = None
        if control is None or process is None:
            return None
        control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_CLOSE_S)
        process.kill()
        return process.wait()


def _start(decode: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The server's process, and our end of the socket to it."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(START_S)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "clapboard.audio.confined.forking", str(theirs.fileno()), decode],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for us to answer
        )
    return ours, process
