"""The HTTP backend: Label Studio's contract on FastAPI. No torch: what needs a model goes to the workers.

`/health` answers on the event loop from memory and `/setup` does so if the store is slow, since Label Studio gives them
1 s and 3 s before every prediction; all that touches the store runs on threads, and waiting for workers takes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from backend.answer import OpenRequest
from backend.auth import BasicAuth
from backend.body_limit import LimitBody
from backend.ledger import ledger_router
from backend.metrics import MeasureRequests, Metrics
from backend.predict import PredictService, pause_s, project_id
from backend.search import search_router
from backend.webhook import ACTIONS, WebhookService
from backend.wire import (
    Health,
    JobAnswer,
    Predictions,
    PredictRequest,
    Problem,
    Received,
    SetupAnswer,
    SetupRequest,
    TrainRequest,
    Versions,
)
from clapboard import __version__
from clapboard.errors import ClapboardError, NoWorkerError, RequestError
from clapboard.jobs import CeleryBell, make_celery
from clapboard.logs import about
from clapboard.settings import Settings
from clapboard.store import Store

_HOUSEKEEPING_S = 1.0
_SETUP_PATIENCE_S = 1.0
_WEBHOOK_THREADS = 4
_OBJECTS_BETWEEN_COLLECTIONS = 100_000

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application on the settings' store and broker. Raises `SettingsError` if the store can't be opened."""
    store = Store.open(settings)
    bell = CeleryBell(make_celery(settings))
    predictions = PredictService(settings, store, bell)
    webhooks = WebhookService(settings, store, bell)
    metrics = Metrics(store)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        keeper = asyncio.create_task(_keep_house(store, predictions, bell, settings.job_lease_s))
        with _collecting_seldom():
            yield
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        store.close()

    app = FastAPI(
        title="Clapboard",
        version=__version__,
        summary="Pre-labels audio in Label Studio with CLAP.",
        lifespan=lifespan,
        responses={status: {"model": Problem} for status in (401, 422, 500, 503)},
    )
    app.include_router(ledger_router(store))
    app.include_router(search_router(settings, store, bell))
    app.add_middleware(LimitBody)
    app.add_middleware(BasicAuth, user=settings.basic_auth_user, password=settings.basic_auth_pass.get_secret_value())
    app.add_middleware(MeasureRequests, metrics=metrics)
    _answer_errors(app)
    _add_contract_routes(app, predictions, webhooks, metrics)
    _add_operator_routes(app, store, webhooks, metrics)
    return app


def _add_contract_routes(app: FastAPI, predictions: PredictService, webhooks: WebhookService, metrics: Metrics) -> None:
    """What Label Studio calls."""
    for_webhooks = anyio.CapacityLimiter(_WEBHOOK_THREADS)  # so that events never queue up behind predictions

    @app.get("/health")
    async def health() -> Health:
        """Whether the backend is up. Never asks for credentials."""
        return Health(version=__version__)

    @app.get("/")
    async def root() -> Health:
        """The same, for a person who looks; the API's description is at /docs."""
        return Health(version=__version__)

    @app.post("/setup")
    async def setup(request: SetupRequest) -> SetupAnswer:
        """The model version for a project's label config, as it is promoted now or, if the store is slow, was."""
        with anyio.move_on_after(_SETUP_PATIENCE_S), contextlib.suppress(SQLAlchemyError, NoWorkerError):
            await anyio.to_thread.run_sync(lambda: predictions.refresh(at_once=True), abandon_on_cancel=True)
        return SetupAnswer(model_version=predictions.setup(request.project or "", request.label_config))

    @app.post("/predict", response_model=Predictions)
    async def predict(request: PredictRequest, asker: Request) -> Response:
        """One entry per task: its prediction, or `[]` where it isn't ready and will be pushed."""
        with about(project=project_id(request.project) or None):
            asked = await run_in_threadpool(predictions.ask, request.tasks, request.label_config, request.project)
            if isinstance(asked, OpenRequest):
                with about(model_version=asked.model_version):
                    heard = await _wait(predictions, asked, asker)
                    asked = await run_in_threadpool(predictions.finish if heard else predictions.abandon, asked)
        metrics.answered.labels("empty").inc(asked.num_empty)
        metrics.answered.labels("predicted").inc(len(asked.found) - asked.num_empty)
        return Response(asked.to_json(), media_type="application/json")

    @app.post("/webhook", status_code=201)
    async def webhook(request: Request) -> Received:
        """Keep an event in the inbox; on disk before this answers."""
        body = await _json_object(request)
        event, job = await anyio.to_thread.run_sync(webhooks.receive, body, limiter=for_webhooks)
        metrics.events.labels(body["action"] if body["action"] in ACTIONS else "other").inc()
        return Received(event=event, job=job)


def _add_operator_routes(app: FastAPI, store: Store, webhooks: WebhookService, metrics: Metrics) -> None:
    """What old servers of Label Studio, people and monitoring call."""

    @app.get("/versions")
    async def versions(project: str | None = None) -> Versions:
        """The model versions that have made predictions, of one project or of all."""
        number = project_id(project) or None
        return Versions(versions=await run_in_threadpool(store.predictions.model_versions, number))

    @app.post("/versions")
    async def post_versions(request: TrainRequest | None = None) -> Versions:
        """The same, as old servers ask for it."""
        return await versions(request.project if request else None)

    @app.post("/train", status_code=201)
    async def train(request: TrainRequest) -> JobAnswer:
        """Queue the project's training; pressed twice, it is the same job."""
        number = project_id(request.project)
        if not number:
            raise RequestError('The request names no project: send {"project": "2"}.')
        with about(project=number):
            return JobAnswer(job=await run_in_threadpool(webhooks.train, number))

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        text = await run_in_threadpool(prometheus_client.generate_latest, metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


async def _wait(predictions: PredictService, opened: OpenRequest, asker: Request) -> bool:
    """Until all is ready or the time is up; whether the asker is still there, whose patience may be shorter."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while not await run_in_threadpool(predictions.is_ready, opened):
        waited_s = loop.time() - began_at
        if waited_s >= predictions.wait_s:
            break
        await asyncio.sleep(min(pause_s(waited_s), predictions.wait_s - waited_s))
        if await asker.is_disconnected():
            return False
    return True


async def _keep_house(store: Store, predictions: PredictService, bell: CeleryBell, lease_s: float) -> None:
    """Every second: the announced encoder, projects to write down, and jobs whose worker is gone."""
    while True:
        try:
            with contextlib.suppress(NoWorkerError):
                await run_in_threadpool(predictions.refresh)
            await run_in_threadpool(predictions.remember_projects)
            for queue in await run_in_threadpool(store.jobs.requeue_lost, lease_s):
                await run_in_threadpool(bell.ring, queue)
        except (SQLAlchemyError, ClapboardError) as error:
            log.warning("housekeeping failed and will be tried again: %s", type(error).__name__)
        await asyncio.sleep(_HOUSEKEEPING_S)


@contextlib.contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Python's garbage collector runs seldom: a request with thousands of tasks makes as many objects, none of them in
    cycles, and would otherwise have it look through all that the process holds, time and again.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RequestError("The body is no JSON object: send Label Studio's payload as it is.")
    return body


def _answer_errors(app: FastAPI) -> None:
    """Every error becomes a `Problem`; no traceback, and no part of the request, gets into a body."""

    @app.exception_handler(ClapboardError)
    async def ours(_request: Request, error: ClapboardError) -> JSONResponse:
        return _problem(error.http_status, error.code, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        return _problem(422, "request", f"The request is malformed: {faults}.")

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, "http", f"{error.detail}: the paths there are stand at /docs.")

    @app.exception_handler(SQLAlchemyError)
    async def store_failed(_request: Request, error: SQLAlchemyError) -> JSONResponse:
        log.error("the store failed: %s", type(error).__name__)
        return _problem(
            503, "store", "The store can't be reached at the moment: try again, and look at the backend's log."
        )

    @app.exception_handler(Exception)
    async def unforeseen(_request: Request, error: Exception) -> JSONResponse:
        return _problem(500, "internal", "Something unforeseen failed: the backend's log says what.")


def _problem(status: int, code: str, detail: str) -> JSONResponse:
    return JSONResponse(Problem(error=code, detail=detail).model_dump(), status)
