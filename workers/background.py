"""A worker's background threads: its heartbeat, one that polls the queues, one that pushes predictions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from clapboard.errors import StoreError
from clapboard.freed_memory import FreedMemory
from clapboard.store import Store
from clapboard.store.retention import Retention
from workers.heartbeat import Heartbeat
from workers.planner import Planner
from workers.push import Pusher
from workers.queue_threads import QueueThreads
from workers.unexpected import unexpected_error

POLL_S = 1.0
LAST_PUSH_S = 5.0
"""How long a worker that stops waits for a push to end: another worker would go on with it."""


class Background:
    """Starts and stops the threads in their order."""

    def __init__(self, heartbeat: Heartbeat, polling: QueuePolling, pushing: Pushing) -> None:
        self._heartbeat = heartbeat
        self._polling = polling
        self._pushing = pushing
        self._threads = [threading.Thread(target=run, daemon=True) for run in (polling.run, pushing.run)]

    def start(self) -> None:
        """Queue what is due by the clock at a worker's start, and start all threads."""
        self._polling.start()
        self._heartbeat.start()
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Have a worker that stops not wait for the next push."""
        self._pushing.owed.set()

    def join(self) -> None:
        """Wait for the threads of a worker that stops. The heartbeat ends last."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(LAST_PUSH_S)
        self._heartbeat.stop()


class QueuePolling:
    """Every second: queue what is due by the clock, delete what is old, wake queues' threads whose wake-up was lost."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        threads: QueueThreads,
        queues: Sequence[str],
        encoders: Collection[str],
        stopping: threading.Event,
        on_outage: Callable[[StoreError], None],
        retention: Retention,
    ) -> None:
        """`encoders` are those that the worker's jobs may be for: see `claimable`."""
        self._store = store
        self._planner = planner
        self._threads = threads
        self._queues = queues
        self._encoders = encoders
        self._stopping = stopping
        self._on_outage = on_outage
        self._retention = retention

    def start(self) -> None:
        """Queue what is due at a worker's start."""
        self._planner.start()

    def run(self) -> None:
        """Poll until the worker stops."""
        memory = FreedMemory()
        while not self._stopping.wait(POLL_S):
            memory.look()
            try:
                self._planner.look()
                self._retention.look()
                waiting = self._store.jobs.queues_with_work(self._queues, self._encoders)
            except StoreError as error:
                self._on_outage(error)
                continue
            for queue in waiting:
                self._threads.wake(queue)


class Pushing:
    """Pushes predictions when some are owed, and every second for those that were put off or left by other workers."""

    def __init__(
        self, pusher: Pusher | None, stopping: threading.Event, on_outage: Callable[[StoreError], None]
    ) -> None:
        self.owed = threading.Event()
        self._pusher = pusher
        self._stopping = stopping
        self._on_outage = on_outage

    def run(self) -> None:
        """Push until the worker stops."""
        while not self._stopping.is_set():
            self.owed.wait(POLL_S)
            self.owed.clear()
            try:
                if self._pusher is not None:
                    self._pusher.push_owed()
            except StoreError as error:
                self._on_outage(error)
            except Exception as error:  # this thread must outlive any answer of Label Studio
                unexpected_error("pushing", error)
