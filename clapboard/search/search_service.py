"""Hands searches to the workers through the store, so that neither backend nor commands need a model."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from clapboard.errors import BusyError, InternalError, NoWorkerError, error_of
from clapboard.installation.public_address import audio_sources
from clapboard.queue.celery_app import SEARCH, Waker
from clapboard.search.search_request import SearchRequest
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Worker
from clapboard.store.jobs import JobRequest

_POLL_S = 0.02


@dataclass(frozen=True)
class OpenSearch:
    """The ids of a search that is waiting for a worker, and of its job."""

    search: str
    job: int


class SearchService:
    """Hands searches to the workers. Thread-safe."""

    def __init__(self, settings: Settings, store: Store, waker: Waker) -> None:
        self.wait_s = settings.search_wait_s
        self._lease_s = settings.job_lease_s
        self._store = store
        self._sources = audio_sources(settings, store)
        self._waker = waker

    def workers(self) -> list[Worker]:
        """The workers that are alive and serve searches."""
        workers = self._store.catalog.workers(self._lease_s)
        return [worker for worker in workers if SEARCH in worker.queues.split(",")]

    def open(self, request: SearchRequest) -> OpenSearch:
        """Queue the search. Raises `NotFoundError` for an unknown project, `NoWorkerError`, `SourceRefused`."""
        self._store.catalog.project(request.project)
        for address in request.addresses:
            self._sources.key(address)
        if not self.workers():
            raise NoWorkerError("No worker is alive that serves the queue search: start one with `clapboard worker`.")
        # In ASCII, since databases can't hold every character that JSON can.
        search_id = self._store.searches.ask(json.dumps(request.model_dump(mode="json")))
        job_request = JobRequest(
            "search", request.project, model_version=f"search-{search_id}", payload={"search": search_id}
        )
        (job_id,) = self._store.jobs.add(SEARCH, [job_request])
        self._waker.wake(SEARCH)
        return OpenSearch(search_id, job_id)

    def answer(self, search: OpenSearch) -> str | None:
        """The answer as JSON; None until a worker has given it. Raises `InternalError` if none could."""
        ended = not self._store.jobs.open_ids([search.job])
        answer = self._store.searches.answer_to(search.search)
        if answer is None and ended:
            raise InternalError(f"The search failed each time it was tried: `clapboard jobs` says why of {search.job}.")
        return answer

    def ask(self, request: SearchRequest) -> list[dict[str, Any]]:
        """Queue the search and wait for its matches.

        Raises what `open` and `answer` do, `BusyError` when the time is up, and the worker's error if it can't answer.
        """
        search = self.open(request)
        try:
            given_up_at = time.monotonic() + self.wait_s
            while (answer := self.answer(search)) is None:
                if time.monotonic() >= given_up_at:
                    raise self.late_error()
                time.sleep(_POLL_S)
        finally:
            self.close(search)
        content = json.loads(answer)
        if "matches" not in content:
            raise error_of(content["error"], content["detail"])
        return list(content["matches"])

    def late_error(self) -> BusyError:
        """The error to raise when the time is up."""
        return BusyError(
            f"The workers haven't answered in {self.wait_s:g} s (CLAPBOARD_SEARCH_WAIT_S): search again, they remember "
            "the sounds that they have embedded."
        )

    def close(self, search: OpenSearch) -> None:
        """Drop the search: nobody waits for it any more."""
        self._store.searches.forget(search.search)
