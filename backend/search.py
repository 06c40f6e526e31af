"""`POST /search`: the same as `clapboard search`. A worker answers, because it has the model."""

from __future__ import annotations

import asyncio
import json

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from backend.json_route import JsonRoute
from backend.polling import pause_s
from backend.wire import Problem, SearchAnswer
from clapboard.logs import about
from clapboard.queue.celery_app import Waker
from clapboard.search.search_request import SearchRequest
from clapboard.search.search_service import OpenSearch, SearchService
from clapboard.settings import Settings
from clapboard.store import Store


def search_router(settings: Settings, store: Store, waker: Waker) -> APIRouter:
    """The route `POST /search`."""
    router, service = APIRouter(route_class=JsonRoute), SearchService(settings, store, waker)

    @router.post(
        "/search", response_model=SearchAnswer, responses={404: {"model": Problem, "description": "No such project"}}
    )
    async def search(request: SearchRequest, caller: Request) -> Response:
        """The places in a project's audio that are most like some texts and sounds, and unlike others; best first."""
        with about(project=request.project):
            opened = await run_in_threadpool(service.open, request)
            try:
                return _response(await _wait(service, opened, caller))
            finally:
                await run_in_threadpool(service.close, opened)

    return router


async def _wait(service: SearchService, opened: OpenSearch, caller: Request) -> str:
    """The answer, as JSON. Raises `BusyError` when the time is up or the caller has disconnected."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while (answer := await run_in_threadpool(service.answer, opened)) is None:
        waited_s = loop.time() - began_at
        if waited_s >= service.wait_s or await caller.is_disconnected():
            raise service.late_error()
        await asyncio.sleep(min(pause_s(waited_s), service.wait_s - waited_s))
    return answer


def _response(answer: str) -> Response:
    content = json.loads(answer)
    if "matches" in content:
        return Response(answer, media_type="application/json")
    return JSONResponse(Problem(error=content["error"], detail=content["detail"]).model_dump(), content["status"])
