"""A child process that is restarted when it dies: the worker of `clapboard up`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from typing import Self

_RESTART_S = 1.0
_LONGEST_RESTART_S = 60.0
_STOP_S = 20.0
_HOPELESS = (2, 3)  # exit codes for wrong settings, and for a model that can't be loaded

log = logging.getLogger(__name__)


class Supervised:
    """Context manager: a child process, restarted whenever it dies.

    If it dies again within a minute, the pause before the restart doubles, up to a minute. If it exits because of its
    settings or model, a restart wouldn't help, so this process stops too.
    """

    def __init__(self, command: list[str], environment: dict[str, str], *, restart_s: float = _RESTART_S) -> None:
        """`restart_s` is the first pause, in seconds."""
        self.gave_up_with = 0
        self._restart_s = restart_s
        self._command = command
        self._environment = os.environ | environment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the current process."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(_STOP_S)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _supervise(self) -> None:
        pause_s = self._restart_s
        while not self._stopping.is_set():
            began_at = time.monotonic()
            # In its own process group: Ctrl-C in a terminal then only reaches this process, which stops the child.
            self._process = subprocess.Popen(self._command, env=self._environment, process_group=0)
            if self._stopping.is_set():
                self._process.terminate()
            code = self._process.wait()
            if code in _HOPELESS and not self._stopping.is_set():
                self.gave_up_with = code
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if self._stopping.is_set():
                return
            if time.monotonic() - began_at > _LONGEST_RESTART_S:
                pause_s = self._restart_s
            log.warning("the worker stopped unexpectedly (%s); it is restarted in %g s", _reason(code), pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RESTART_S)


def _reason(code: int) -> str:
    """The exit code in words."""
    if code >= 0:
        return f"exit code {code}: its log says why"
    return signal.Signals(-code).name + (", perhaps out of memory" if -code == signal.SIGKILL else "")
