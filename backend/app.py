"""The HTTP backend: Label Studio's contract on FastAPI. No torch: workers do whatever needs a model.

Label Studio waits 1 s for `/health` and 3 s for `/setup`, and asks for both before every prediction. So `/health` is
answered on the event loop from memory, and `/setup` from memory too where the store is slow. Whatever touches the store
runs on threads; waiting for workers takes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from backend.access import Access
from backend.admission import Admission
from backend.answering import OpenRequest, PredictAnswer, PredictService
from backend.body_limit import BodyBounds, LimitBody
from backend.connections import LimitRequests
from backend.description import BODY_OF_EVENTS, OPEN, PROBLEMS, describe
from backend.json_route import JsonRoute, limit_reading
from backend.ledger import ledger_router
from backend.metrics import MeasureRequests, Metrics
from backend.polling import pause_s
from backend.problems import answer_errors
from backend.search import search_router
from backend.services import Services
from backend.webhook import ACTIONS
from backend.wire import (
    Health,
    JobAnswer,
    Predictions,
    PredictRequest,
    Problem,
    ProjectId,
    Received,
    SetupAnswer,
    SetupRequest,
    TrainRequest,
    Versions,
    VersionsRequest,
    project_id,
)
from clapboard import __version__
from clapboard.errors import ClapboardError, NoWorkerError, RequestError, StoreError, TrainingError
from clapboard.freed_memory import FreedMemory
from clapboard.logs import about
from clapboard.settings import Settings
from clapboard.untrusted import require_object

_HOUSEKEEPING_S = 1.0
_SETUP_PATIENCE_S = 1.0
_WEBHOOK_THREADS = 4
_SETUP_THREADS = 1
_OBJECTS_BETWEEN_COLLECTIONS = 100_000
_SWITCH_S = 0.001  # how long a thread that computes may keep the event loop waiting; Python's default is 0.005
_TEXT = {"schema": {"type": "string"}}

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application on the settings' store and broker. Raises `SettingsError` if the store can't be opened."""
    services = Services.open(settings)
    store = services.store
    metrics = Metrics(store)
    access = Access(settings, store)
    freed = FreedMemory()
    app = FastAPIOffline(  # serves the scripts of /docs itself: many networks have no way out
        redoc_url=None,  # its page loads a logo from a CDN
        title="Clapboard",
        version=__version__,
        summary="Pre-labels audio in Label Studio with CLAP.",
        lifespan=lambda _app: _running(services, access, freed, settings.job_lease_s),
        responses=PROBLEMS,
    )
    app.router.route_class = JsonRoute
    app.include_router(ledger_router(store))
    app.include_router(search_router(settings, store, services.waker))
    limit_reading(app)
    app.add_middleware(LimitBody, bounds=BodyBounds.of(settings), freed=freed)
    app.add_middleware(Admission, access=access)
    app.add_middleware(LimitRequests, max_requests=settings.max_connections)
    app.add_middleware(MeasureRequests, metrics=metrics)
    answer_errors(app)
    _add_contract_routes(app, services, metrics)
    _add_operator_routes(app, services, metrics)
    describe(app, access)
    return app


def _add_contract_routes(app: FastAPI, services: Services, metrics: Metrics) -> None:
    """Add the routes that Label Studio calls."""
    for_webhooks = anyio.CapacityLimiter(_WEBHOOK_THREADS)  # so that events never wait behind predictions
    for_setups = anyio.CapacityLimiter(_SETUP_THREADS)  # which touch no store, so that they never wait behind one

    @app.get("/health", openapi_extra=OPEN)
    async def health() -> Health:
        """Whether the backend is up. Never asks for credentials."""
        return Health(version=__version__)

    @app.get("/")
    async def root() -> Health:
        """The same as `/health`. The API's description is at /docs."""
        return Health(version=__version__)

    @app.post("/setup")
    async def setup(request: SetupRequest) -> SetupAnswer:
        """The model version that serves the project's label config: read now, or from memory if the store is slow."""
        with anyio.move_on_after(_SETUP_PATIENCE_S), contextlib.suppress(StoreError, NoWorkerError):
            await anyio.to_thread.run_sync(lambda: services.versions.refresh(at_once=True), abandon_on_cancel=True)
        introduced = (request.project or "", request.label_config, request.hostname)
        version = await anyio.to_thread.run_sync(services.setups.setup, *introduced, limiter=for_setups)
        return SetupAnswer(model_version=version)

    @app.post("/predict", response_model=Predictions)
    async def predict(request: PredictRequest, caller: Request) -> Response:
        """One entry per task: its prediction, or `[]` where it isn't ready and will be pushed."""
        with about(project=project_id(request.project) or None):
            answer = await _predict(services.predictions, request, caller)
        metrics.answered.labels("empty").inc(answer.num_empty)
        metrics.answered.labels("predicted").inc(len(answer.predictions) - answer.num_empty)
        return Response(await run_in_threadpool(answer.to_json), media_type="application/json")

    @app.post("/webhook", status_code=201, openapi_extra=BODY_OF_EVENTS)
    async def webhook(request: Request) -> Received:
        """Keep an event in the inbox. It is on disk before this answers."""
        body = require_object(await request.json() if await request.body() else None)
        receipt = await anyio.to_thread.run_sync(services.webhooks.receive, body, limiter=for_webhooks)
        metrics.events.labels(body["action"] if body["action"] in ACTIONS else "other").inc()
        return Received(event=receipt.event, job=receipt.job, message=receipt.message)


def _add_operator_routes(app: FastAPI, services: Services, metrics: Metrics) -> None:
    """Add the routes that people, monitoring and old versions of Label Studio call."""

    @app.get("/versions")
    async def versions(project: ProjectId = None) -> Versions:
        """The model versions that have made predictions, for one project or for all."""
        number = project_id(project) or None
        return Versions(versions=await run_in_threadpool(services.store.predictions.shown_names, number))

    @app.post("/versions")
    async def post_versions(request: VersionsRequest | None = None) -> Versions:
        """The same, for old versions of Label Studio."""
        return await versions(request.project if request else None)

    @app.post("/train", status_code=201, responses={409: {"model": Problem}})
    async def train(request: TrainRequest) -> JobAnswer:
        """Queue the project's training, unless its job is queued already. 409 if there is nothing to learn from."""
        number = project_id(request.project)
        if not number:
            raise RequestError('The request names no project: send {"project": "2"}.')
        with about(project=number):
            requested = await run_in_threadpool(services.webhooks.train, number)
        if requested.job is None:
            raise TrainingError(requested.message)
        return JobAnswer(job=requested.job, message=requested.message)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": _TEXT}}})
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        text = await run_in_threadpool(prometheus_client.generate_latest, metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


async def _predict(predictions: PredictService, request: PredictRequest, caller: Request) -> PredictAnswer:
    """The answer to the request, waiting for workers without a thread."""
    opened = await run_in_threadpool(predictions.open, request.tasks, request.label_config, request.project)
    if isinstance(opened, PredictAnswer):
        return opened
    with about(model_version=opened.model_version):
        is_connected = await _wait(predictions, opened, caller)
        return await run_in_threadpool(predictions.finish if is_connected else predictions.abandon, opened)


async def _wait(predictions: PredictService, opened: OpenRequest, caller: Request) -> bool:
    """Wait until all jobs have ended or the time is up; whether the caller is still connected."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while not await run_in_threadpool(predictions.is_ready, opened):
        waited_s = loop.time() - began_at
        if waited_s >= predictions.wait_s:
            break
        await asyncio.sleep(min(pause_s(waited_s), predictions.wait_s - waited_s))
        if await caller.is_disconnected():
            return False
    return True


@contextlib.asynccontextmanager
async def _running(services: Services, access: Access, freed: FreedMemory, lease_s: float) -> AsyncIterator[None]:
    """What runs as long as the application does."""
    await run_in_threadpool(services.webhooks.look_for_lost_events)
    housekeeping = asyncio.create_task(_keep_house(services, access, freed, lease_s))
    with _collecting_seldom(), _switching_often():
        yield
    housekeeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await housekeeping
    services.store.close()


async def _keep_house(services: Services, access: Access, freed: FreedMemory, lease_s: float) -> None:
    """Every second: refresh versions and password, write down new projects, requeue the jobs of lost workers.

    Memory that was freed is given back to the system.
    """
    while True:
        await run_in_threadpool(freed.look)
        try:
            with contextlib.suppress(NoWorkerError):
                await run_in_threadpool(services.versions.refresh)
            await run_in_threadpool(access.refresh)
            await run_in_threadpool(services.setups.store_introductions)
            for queue in await run_in_threadpool(services.store.jobs.requeue_lost, lease_s):
                await run_in_threadpool(services.waker.wake, queue)
        except ClapboardError as error:
            log.warning("housekeeping failed and will be tried again: %s", error)
        await asyncio.sleep(_HOUSEKEEPING_S)


@contextlib.contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Have Python's garbage collector run seldom.

    A request for thousands of tasks makes as many objects, none of them in cycles. By default the collector would go
    through everything in the process's memory several times during such a request.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _switching_often() -> Iterator[None]:
    """Have Python's threads take turns often, so that those which compute don't hold up the event loop."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
