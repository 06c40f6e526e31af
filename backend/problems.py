"""Every error as a `Problem`: a stable name and one sentence, without a traceback or any part of the request's body."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from backend.wire import Problem
from clapboard.errors import ClapboardError, RequestError, StoreError

MOST_FAULTS = 5
_FIELD = re.compile(r"[a-z_]{1,40}")  # a field of ours, or nearly; anything else may be part of the request's body

UNEXPECTED = Problem(
    error="internal", detail="An unexpected error, which is a bug in Clapboard: see the backend's log."
)

log = logging.getLogger(__name__)


def problem_of(error: Exception) -> tuple[int, Problem]:
    """HTTP status and body for an error. What the caller needn't know, such as the store's path, is only logged."""
    if isinstance(error, StoreError):
        log.error("%s", error)
        sentence = "The store can't be reached at the moment: try again, and look at the backend's log."
        return 503, Problem(error="store", detail=sentence)
    if isinstance(error, ClapboardError):
        return error.http_status, Problem(error=error.code, detail=str(error))
    return 500, UNEXPECTED


def problem(error: Exception, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that failed with this error."""
    return _answer(*problem_of(error), headers)


def answer_errors(app: FastAPI) -> None:
    """Have the application answer every error with a `Problem`."""

    @app.exception_handler(ClapboardError)
    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> Response:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> Response:
        faults = [_fault(item) for item in error.errors()[:MOST_FAULTS]]
        return problem(RequestError(f"The request is malformed: {'; '.join(faults)}."))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if methods := app.openapi()["paths"].get(request.url.path):  # of all its routes; Starlette names one route's
            headers["Allow"] = ", ".join(sorted(map(str.upper, methods)))
        detail = f"{error.detail}: the API's description at /docs lists the paths."
        return _answer(error.status_code, Problem(error="http", detail=detail), headers)


def _answer(status: int, body: Problem, headers: Mapping[str, str] | None = None) -> Response:
    # ASCII, because a sentence may quote half a surrogate pair, which has no other encoding.
    return Response(json.dumps(body.model_dump()), status, headers, media_type="application/json")


def _fault(item: Mapping[str, Any]) -> str:
    """Where the request is malformed, and how."""
    location: Sequence[Any] = item["loc"]
    parts = [str(part) if isinstance(part, int) or _FIELD.fullmatch(part) else "…" for part in location]
    return f"{'.'.join(parts)}: {item['msg'].removeprefix('Value error, ')}"
