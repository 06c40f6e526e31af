"""Shows what an installation or the demo is doing: a line when a step begins, and one when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_SHORT_S = 3.0


class StepError(Exception):
    """A step failed; the message ends with a sentence that says what to do."""


class Steps:
    """Prints the steps of one run, several of which may be under way at once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began_at

    @contextmanager
    def step(self, name: str, usual: str) -> Iterator[None]:
        """Run the body as a step; `usual` is how long it takes where all is well, such as `20 s`."""
        began_at = time.monotonic()
        self._print(f"{name}: about {usual}")
        try:
            yield
        except BaseException:
            self._print(f"{name}: failed")
            raise
        took_s = time.monotonic() - began_at
        if took_s > _SHORT_S:
            self._print(f"{name}: done in {took_s:.0f} s")

    def _print(self, line: str) -> None:
        with self._lock:
            self._out.write(f"[{self.elapsed_s:3.0f} s] {line}\n")
            self._out.flush()
