"""`POST /search`: the same as `clapboard search`, by a worker, which has the model."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from backend.predict import pause_s
from backend.wire import Problem, SearchAnswer
from clapboard.errors import BusyError, InternalError, NoWorkerError
from clapboard.jobs import SEARCH, Bell
from clapboard.logs import about
from clapboard.search.request import SearchRequest
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import JobRequest


@dataclass(frozen=True)
class OpenSearch:
    """A search that a worker has been asked for."""

    search: str
    job: int


class SearchService:
    """Hands searches to the workers. Thread-safe."""

    def __init__(self, settings: Settings, store: Store, bell: Bell) -> None:
        self.wait_s = settings.search_wait_s
        self._lease_s = settings.job_lease_s
        self._store = store
        self._sources = AudioSources(settings)
        self._bell = bell

    def open(self, request: SearchRequest) -> OpenSearch:
        """The search, queued. Raises `NotFoundError` for an unknown project, `NoWorkerError`, `SourceRefused`."""
        self._store.catalog.project(request.project)
        for address in request.addresses:
            self._sources.key(address)
        if not any(SEARCH in worker.queues.split(",") for worker in self._store.catalog.workers(self._lease_s)):
            raise NoWorkerError("No worker is alive that serves the queue search: start one with `clapboard worker`.")
        # In ASCII, since databases can't hold every character that JSON can.
        search = self._store.searches.ask(json.dumps(request.model_dump(mode="json")))
        asked = JobRequest("search", request.project, model_version=f"search-{search}", payload={"search": search})
        (job,) = self._store.jobs.add(SEARCH, [asked])
        self._bell.ring(SEARCH)
        return OpenSearch(search, job)

    def answer(self, opened: OpenSearch) -> str | None:
        """The answer, once a worker has given it. Raises `InternalError` if none could."""
        ended = not self._store.jobs.open_ids([opened.job])
        answer = self._store.searches.answer_to(opened.search)
        if answer is None and ended:
            raise InternalError(f"The search failed each time it was tried: `clapboard jobs` says why of {opened.job}.")
        return answer

    def close(self, opened: OpenSearch) -> None:
        """Nobody waits for it any more."""
        self._store.searches.forget(opened.search)


def search_router(settings: Settings, store: Store, bell: Bell) -> APIRouter:
    """`POST /search`."""
    router, service = APIRouter(), SearchService(settings, store, bell)

    @router.post(
        "/search", response_model=SearchAnswer, responses={status: {"model": Problem} for status in (404, 500, 503)}
    )
    async def search(request: SearchRequest, asker: Request) -> Response:
        """The places of a project's audio most like some texts and sounds, and unlike others, best first."""
        with about(project=request.project):
            opened = await run_in_threadpool(service.open, request)
            try:
                return _response(await _wait(service, opened, asker))
            finally:
                await run_in_threadpool(service.close, opened)

    return router


async def _wait(service: SearchService, opened: OpenSearch, asker: Request) -> str:
    """The answer. Raises `BusyError` when the time is up, or nobody is there to hear it."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while (answer := await run_in_threadpool(service.answer, opened)) is None:
        waited_s = loop.time() - began_at
        if waited_s >= service.wait_s or await asker.is_disconnected():
            raise BusyError(
                f"The workers haven't answered in {service.wait_s:g} s (CLAPBOARD_SEARCH_WAIT_S): ask again, they "
                "remember the sounds that they have heard."
            )
        await asyncio.sleep(min(pause_s(waited_s), service.wait_s - waited_s))
    return answer


def _response(answer: str) -> Response:
    told = json.loads(answer)
    if "matches" in told:
        return Response(answer, media_type="application/json")
    return JSONResponse(Problem(error=told["error"], detail=told["detail"]).model_dump(), told["status"])
