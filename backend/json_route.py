"""Routes that answer a body which isn't JSON in one sentence, however broken or deeply nested it is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from backend.body_limit import BODY
from clapboard.untrusted import read_json, require_few_values

_LARGE_BYTES = 65_536  # what is smaller is read in a millisecond
_READ_AT_ONCE = 1  # further threads would only wait for Python's lock


def limit_reading(app: FastAPI) -> None:
    """Bound how many large bodies the application reads at once."""
    app.state.reading = CapacityLimiter(_READ_AT_ONCE)


class JsonRoute(APIRoute):
    """A route that parses its JSON itself: FastAPI's own parser answers 400 to what it doesn't expect."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, called once the body has been parsed."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            """The route's answer. Raises `RequestError` if the body isn't JSON."""
            request = _JsonRequest(request.scope, request.receive)
            if "POST" in (self.methods or ()) and await request.body():
                await request.json()
            return await handler(request)

        return handle


class _JsonRequest(Request):
    async def body(self) -> bytes:
        """The body as `LimitBody` has read it."""
        return self.scope.get(BODY) or await super().body()

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            if len(body) <= _LARGE_BYTES:
                self._json = read_json(body)
            else:
                self._json = await anyio.to_thread.run_sync(_read_large, body, limiter=self.app.state.reading)
        return self._json


def _read_large(body: bytes | bytearray) -> Any:
    """The JSON value of a large body. Raises `RequestError`, `BodyTooLarge`."""
    require_few_values(body)
    return read_json(body)
