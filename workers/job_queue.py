"""Jobs that jobs ask for: added to the store, and the workers woken."""

from __future__ import annotations

from collections.abc import Sequence

from clapboard.queue.celery_app import Waker
from clapboard.store import Store
from clapboard.store.jobs import JobRequest


class JobQueue:
    """Adds jobs to the store and wakes the workers of their queue. Threads share it."""

    def __init__(self, store: Store, waker: Waker) -> None:
        self._store = store
        self._waker = waker

    def add(self, queue: str, requests: Sequence[JobRequest]) -> list[int]:
        """Ids of the open jobs for the requests, in their order: new ones, or those that were open already."""
        ids = self._store.jobs.add(queue, requests)
        self._waker.wake(queue)
        return ids

    def add_for_project(self, queue: str, kind: str, project: int) -> None:
        """Queue a job of the kind for the project."""
        self.add(queue, [JobRequest(kind, project)])
