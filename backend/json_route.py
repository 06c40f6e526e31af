"""Routes that answer a body which isn't JSON in one sentence, however broken or deeply nested it is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from clapboard.untrusted import read_json


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
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = read_json(await self.body())
        return self._json
