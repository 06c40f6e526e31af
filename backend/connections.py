"""Bounds on connections: none may wait for ever, and however many there are, a new one is answered.

A connection *waits* as long as no complete request has come through it: it is silent, its headers or its body are
half-sent, or it is kept alive between two requests. If there are too many connections, the one that has waited longest
is closed for the new one. If all of them are being answered, further requests are refused, but `/health` isn't.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from typing import Any, Self

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from backend.access import OPEN_PATHS
from backend.problems import problem
from clapboard.errors import BusyError
from clapboard.settings import Settings

ACCEPTED_AT_ONCE = 128
"""How many connections the event loop accepts before it looks at them, at most."""

RESERVE = 32
"""Connections beyond the bound, for `/health`, when all others are being answered."""

SILENCE_S = 5.0
"""Seconds after which a connection without a complete request is closed; twice that at most."""

_OTHER_FILES = 128  # descriptors for the store, the broker and the audio cache
_MAX_SHUTDOWN_S = 8.0  # Docker kills 10 s after it has asked to stop
_READ_AT_ONCE = 65_536  # bytes; parsing a quarter of a megabyte of tiny chunks would take most of a second


@dataclass(frozen=True)
class ConnectionBounds:
    """The most connections, without the reserve, and the seconds until a silent one is closed."""

    max_connections: int
    silence_s: float = SILENCE_S

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The settings' bound, or what the process's descriptors allow, after raising their number."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = settings.max_connections + RESERVE + 2 * ACCEPTED_AT_ONCE + _OTHER_FILES
        if soft < needed:
            soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return cls(max(1, settings.max_connections - max(0, needed - soft)))


def shutdown_s(settings: Settings) -> float:
    """Seconds that requests under way may still take when the backend is to stop."""
    return max(_MAX_SHUTDOWN_S, settings.predict_wait_s + 3.0)


class BoundedConnection(H11Protocol):
    """A connection within the bounds. uvicorn makes one for each that it accepts."""

    def __init__(self, *arguments: Any, bounds: ConnectionBounds, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._bounds = bounds
        self._waits_since = self.loop.time()
        self._looked_at: Any = None  # the request that was under way when the connection was last looked at
        self._next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, or close it if there is none."""
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_AT_ONCE
        super().connection_made(transport)
        self._next_look = self.loop.call_later(self._bounds.silence_s, self._look)
        if len(self.connections) > self._bounds.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._next_look is not None:
            self._next_look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The connection waits for another request."""
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close the connection once its request is answered; at once if that can't come any more."""
        if self._waits and self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    @property
    def _waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _look(self) -> None:
        """Close the connection if no request has begun since it was last looked at. Slow bodies are `LimitBody`'s."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._looked_at is self.cycle:
            self.transport.abort()
            return
        self._looked_at = self.cycle if is_idle else self
        self._next_look = self.loop.call_later(self._bounds.silence_s, self._look)

    def _make_room(self) -> None:
        """Close the connection that has waited longest; this one, if none waits and the reserve is used up."""
        others = [other for other in self.connections if isinstance(other, BoundedConnection) and other is not self]
        waiting = [other for other in others if other._waits and not other.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda other: other._waits_since).transport.abort()
        elif len(others) >= self._bounds.max_connections + RESERVE:
            self.transport.abort()


class LimitRequests:
    """ASGI middleware that refuses requests beyond the bound, except to `/health`."""

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if self._num_open >= self._max_requests:
            busy = BusyError("The backend is answering as many requests as it may at once: try again in a minute.")
            await problem(busy, {"Connection": "close"})(scope, receive, send)
            return
        self._num_open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_open -= 1
