"""Memory that a process has freed → back to the system, once it rests.

glibc keeps what it may need again, after a busy stretch often 100 MB and more.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

QUIET_S = 5.0
"""How long a process has to rest first."""

_BUSY_SHARE = 0.1
_WORTHWHILE_S = 0.5


class FreedMemory:
    """To be looked at every second or so, by one thread. What is busy and what is rest follows from processor time."""

    def __init__(
        self,
        give_back: Callable[[], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        """`give_back` is by default `malloc_trim`, where there is one."""
        self._give_back = give_back or _trim
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._looked_at = self._quiet_since = clock()
        self._cpu_at = cpu_clock()
        self._worked_s = 0.0  # of the processor, since memory was given back
        self._is_due = False

    def note(self) -> None:
        """Much was freed just now: the next look gives it back, at rest or not. Threads may call this."""
        self._is_due = True

    def look(self) -> None:
        """Give memory back if the process has worked since the last time, and rests now."""
        now, cpu = self._clock(), self._cpu_clock()
        used_s = cpu - self._cpu_at
        self._worked_s += used_s
        if used_s > _BUSY_SHARE * (now - self._looked_at):
            self._quiet_since = now
        self._looked_at, self._cpu_at = now, cpu
        is_at_rest = now - self._quiet_since >= QUIET_S and self._worked_s > _WORTHWHILE_S
        if self._is_due or is_at_rest:
            self._is_due, self._worked_s = False, 0.0
            self._give_back()


def _trim() -> None:
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if malloc_trim is not None:
        malloc_trim(0)
