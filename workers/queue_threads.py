"""A worker's threads: so many at each queue, so that opening or accepting a task never waits behind a whole project."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from clapboard.errors import StoreError
from clapboard.queue.names import BATCH, INTERACTIVE, LEARN, SEARCH, TRAIN

THREADS = {INTERACTIVE: 2, SEARCH: 2, LEARN: 1, BATCH: 2, TRAIN: 1}
"""How many threads may work at a queue."""


class QueueThreads:
    """Starts a thread when a queue has work, and ends it when the queue is empty."""

    def __init__(
        self, queues: Sequence[str], work_off: Callable[[str], None], on_outage: Callable[[StoreError], None]
    ) -> None:
        """`work_off` runs a queue's jobs until there are none; `on_outage` gets the store's failures meanwhile."""
        self._queues = list(queues)
        self._work_off = work_off
        self._on_outage = on_outage
        self._places = {queue: threading.BoundedSemaphore(THREADS[queue]) for queue in queues}
        self._working: list[str] = []  # a queue for each thread

    def wake(self, queue: str) -> None:
        """Have another thread work at the queue if it may have one more. Returns at once."""
        if self._working.count(queue) < THREADS[queue]:
            threading.Thread(target=self.drain, args=[queue], daemon=True).start()

    def drain(self, queue: str) -> None:
        """Work at the queue in this thread until it is empty; do nothing if it has all its threads already."""
        if not self._places[queue].acquire(blocking=False):
            return
        self._working.append(queue)
        try:
            self._work_off(queue)
        except StoreError as error:
            self._on_outage(error)
        finally:
            self._working.remove(queue)
            self._places[queue].release()

    def num_busy(self) -> dict[str, int]:
        """How many threads work at each queue now."""
        return {queue: self._working.count(queue) for queue in self._queues}

    def wait_until_idle(self) -> None:
        """Return when no thread works any more."""
        for queue, places in self._places.items():
            for _ in range(THREADS[queue]):
                places.acquire()  # with every place taken here, no thread is at the queue
            places.release(THREADS[queue])
