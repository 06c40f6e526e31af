"""Limits the size of request bodies: by Content-Length, and by what is received, before anything is parsed."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.problems import problem
from clapboard.errors import BodyTooLarge
from clapboard.search.search_request import MAX_AUDIO_CHARS

_MB = 1024 * 1024
MAX_BODY_BYTES = {
    "/webhook": 64 * _MB,
    "/search": 2 * MAX_AUDIO_CHARS,
    "/setup": 16 * _MB,
    "/versions": _MB,
    "/train": 256 * _MB,  # old versions of Label Studio send all annotated tasks
}
"""By path. `/predict` has no limit: Label Studio's batches may hold any amount of audio in data: URIs."""


class LimitBody:
    """ASGI middleware that reads the whole body on a limited path, as its route would, and refuses larger ones."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int] = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limits.get(scope["path"]) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
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
        await self._app(scope, _starting_with({"type": "http.request", "body": b"".join(parts)}, receive), send)


def _starting_with(message: Message, receive: Receive) -> Receive:
    """Receives the message first, and then what `receive` does."""
    pending = [message]

    async def receive_next() -> Message:
        return pending.pop() if pending else await receive()

    return receive_next


async def _refuse(limit: int, scope: Scope, receive: Receive, send: Send) -> None:
    error = BodyTooLarge(f"The request's body is larger than {limit} bytes: send it in smaller parts.")
    await problem(error)(scope, receive, send)
