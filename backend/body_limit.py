"""How much of a request's body is read: refused by its announced size, or as it comes in, before it is parsed."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.wire import Problem
from clapboard.errors import RequestError
from clapboard.search.request import MAX_AUDIO_CHARS

MAX_BODY_BYTES = {"/webhook": 64 * 1024 * 1024, "/search": 2 * MAX_AUDIO_CHARS}
"""By path. What Label Studio asks `/predict` has no bound: its batches may hold as much audio as they like."""


class LimitBody:
    """ASGI middleware that reads the bodies of some paths whole, as their routes would, and refuses larger ones."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int] = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limits.get(scope["path"]) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        if int(Headers(scope=scope).get("content-length", 0)) > limit:
            await _refuse(limit, scope, receive, send)
            return
        parts, num_bytes, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            num_bytes += len(parts[-1])
            if num_bytes > limit:
                await _refuse(limit, scope, receive, send)
                return
            more = message.get("more_body", False)
        await self._app(scope, _first({"type": "http.request", "body": b"".join(parts)}, receive), send)


def _first(message: Message, receive: Receive) -> Receive:
    """Gives the message, and from then on what comes."""
    left = [message]

    async def given() -> Message:
        return left.pop() if left else await receive()

    return given


async def _refuse(limit: int, scope: Scope, receive: Receive, send: Send) -> None:
    error = RequestError(f"The request's body is larger than {limit} bytes: send it in smaller parts.")
    await JSONResponse(Problem(error=error.code, detail=str(error)).model_dump(), error.http_status)(
        scope, receive, send
    )
