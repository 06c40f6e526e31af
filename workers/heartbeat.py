"""A worker's heartbeat: it and its jobs are alive, and jobs of workers that died are queued again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clapboard.errors import StoreError
from clapboard.store import Store
from workers.job_runner import JobRunner
from workers.presence import Presence

LONGEST_PAUSE_S = 1.0
BEATS_PER_LEASE = 5


class Heartbeat:
    """A thread that beats several times a lease until `stop`: longer than anything else in the worker."""

    def __init__(
        self,
        store: Store,
        worker: str,
        lease_s: float,
        presence: Presence,
        runner: JobRunner,
        on_outage: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._lease_s = lease_s
        self._presence = presence
        self._runner = runner
        self._on_outage = on_outage
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Return after the last beat: one that came after the worker signed off would bring it back."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(min(LONGEST_PAUSE_S, self._lease_s / BEATS_PER_LEASE)):
            try:
                self._store.jobs.heartbeat(self._worker)
                self._presence.sign_on()
                self._store.jobs.requeue_lost(self._lease_s)
                self._runner.give_back()
            except StoreError as error:
                self._on_outage(error)
