"""A lock per project: one job at a time may change what the project shows, on whatever machine it runs.

Refitting, promoting, pruning, syncing and aligning each read Label Studio and the store, and then change both according
to what they read. Two of them side by side would undo each other's work.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clapboard.errors import ProjectBusy, StoreError
from clapboard.store import Store

WAIT_S = 120.0
"""How long a command waits for a job that is changing the project."""

RENEWALS_PER_LEASE = 4
_RETRY_S = 0.2


class ProjectLocks:
    """The locks that one process holds, each renewed while it is held. Its own threads exclude each other, too."""

    def __init__(self, store: Store, name: str, lease_s: float) -> None:
        """`name` shows which process holds a lock; `lease_s` is how long the lock of a killed process lasts."""
        self._store = store
        self._name = name
        self._lease_s = lease_s
        self._held: dict[int, str] = {}

    @contextmanager
    def hold(
        self, project: int, *, wait_s: float = 0.0, on_wait: Callable[[str], object] = lambda _sentence: None
    ) -> Iterator[None]:
        """Hold the project's lock inside the `with`. Raises `ProjectBusy` if another job still has it after `wait_s`.

        `on_wait` is called once, with a sentence, if there is a wait.
        """
        holder = f"{self._name}/{uuid.uuid4().hex[:8]}"
        deadline = time.monotonic() + wait_s
        has_announced = False
        while not self._store.locks.take(project, holder, self._lease_s):
            if time.monotonic() >= deadline:
                raise ProjectBusy(f"Project {project} is being changed by another job: try again in a moment.")
            if not has_announced:
                on_wait(f"Project {project} is being changed by another job: waiting until it is done.")
                has_announced = True
            time.sleep(_RETRY_S)
        self._held[project] = holder
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=[project, holder, ended.wait], daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            del self._held[project]
            self._store.locks.release(project, holder)

    def check(self, project: int) -> None:
        """Renew the lock before a step that can't be undone. Raises `ProjectBusy` if it was lost in the meantime."""
        holder = self._held.get(project)
        if holder is not None and not self._store.locks.take(project, holder, self._lease_s):
            raise ProjectBusy(
                f"Project {project} was taken over by another job, because this process stood still for too long."
            )

    def _renew(self, project: int, holder: str, ended: Callable[[float], bool]) -> None:
        while not ended(self._lease_s / RENEWALS_PER_LEASE):
            try:
                if self._store.locks.holder(project) not in (None, holder):
                    return  # lost, and another job's now
                self._store.locks.take(project, holder, self._lease_s)
            except StoreError:
                continue  # the store can't be reached; try again at the next renewal
