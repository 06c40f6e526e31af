"""Bounds on request bodies: how large one may be, how long it may take, and how many bytes there may be in all.

All hold while a body is read, before anything is parsed, whether its length is announced or it comes in chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.access import OPEN_PATHS
from backend.problems import problem
from clapboard.errors import BodyTooLarge, BodyTooSlow, BusyError
from clapboard.freed_memory import FreedMemory
from clapboard.search.search_request import MAX_AUDIO_CHARS
from clapboard.settings import Settings

BODY = "clapboard.body"
"""Where a request's scope has the body, so that it isn't copied for the route."""

_MB = 1_000_000
_OWN_BOUNDS = {"/search": 2 * MAX_AUDIO_CHARS, "/setup": 8 * _MB, "/versions": _MB}
_WITH_TASKS = ("/predict", "/train", "/webhook")  # old versions of Label Studio send all annotated tasks to /train
_SMALL = 65_536  # bodies up to this size need no room: those of all connections together are small
_BODIES_AT_ONCE = 2  # of the largest size


@dataclass(frozen=True)
class BodyBounds:
    """The largest body by path, in bytes; the seconds that one may take; the bytes of all large ones together."""

    max_bytes: Mapping[str, int]
    others: int = _MB  # paths that aren't listed
    timeout_s: float = 30.0
    room: int = 256 * _MB

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The settings' bounds."""
        most = int(settings.max_body_mb * _MB)
        max_bytes = {path: min(bound, most) for path, bound in _OWN_BOUNDS.items()} | dict.fromkeys(_WITH_TASKS, most)
        return cls(max_bytes, min(_MB, most), settings.body_timeout_s, _BODIES_AT_ONCE * most)

    def of_path(self, path: str) -> int:
        """The largest body there, in bytes."""
        return self.max_bytes.get(path, self.others)


def too_large(path: str, limit: int) -> BodyTooLarge:
    """The error of a body that is larger than the path's bound."""
    advice = "send it in smaller parts"
    if path in _WITH_TASKS:
        advice = "select fewer tasks at once, or raise CLAPBOARD_MAX_BODY_MB where the backend runs"
    return BodyTooLarge(f"The request's body is larger than {limit} bytes: {advice}.")


class LimitBody:
    """ASGI middleware that reads the whole body, as its route would, and refuses what is beyond the bounds."""

    def __init__(self, app: ASGIApp, bounds: BodyBounds, freed: FreedMemory) -> None:
        self._app = app
        self._bounds = bounds
        self._room = _Room(bounds.room)
        self._freed = freed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or not _has_body(headers := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        place = _Place(self._room)
        try:
            body = await self._read(scope["path"], headers, receive, place)
            if body is not None:
                scope[BODY] = body
                await self._app(scope, _starting_with({"type": "http.request"}, receive), send)
        except (BodyTooLarge, BodyTooSlow, BusyError) as error:
            await problem(error)(scope, receive, send)
        finally:
            scope.pop(BODY, None)
            if place.num_bytes:
                self._freed.note()
            place.give_back()

    async def _read(self, path: str, headers: Headers, receive: Receive, place: _Place) -> bytearray | None:
        """The body; None if the caller has gone. Raises `BodyTooLarge`, `BodyTooSlow`, `BusyError`."""
        limit = self._bounds.of_path(path)
        length = _length(headers)
        if length is not None and length > limit:
            raise too_large(path, limit)
        body, more = bytearray(), True
        with anyio.move_on_after(self._bounds.timeout_s):
            while more:
                if not place.num_bytes and max(len(body), length or 0) > _SMALL:
                    await place.take(min(limit, length or limit))
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > limit:
                    raise too_large(path, limit)
                more = message.get("more_body", False)
            return body
        if place.is_awaited:
            raise BusyError("Other requests with large bodies are being answered: try again in a minute.")
        raise BodyTooSlow(
            f"The request's body wasn't there after {self._bounds.timeout_s:g} s (CLAPBOARD_BODY_TIMEOUT_S): send it "
            "again."
        )


@dataclass
class _Room:
    """How many bytes of large bodies there may still be. Those that have to wait get theirs in order."""

    num_free: int
    waiting: deque[tuple[int, anyio.Event]] = field(default_factory=deque)

    def serve_next(self) -> None:
        while self.waiting and self.waiting[0][0] <= self.num_free:
            num_bytes, served = self.waiting.popleft()
            self.num_free -= num_bytes
            served.set()


@dataclass
class _Place:
    """One body's part of the room: all of it at once, so that half-read bodies never wait for each other."""

    room: _Room
    num_bytes: int = 0
    is_awaited: bool = False

    async def take(self, num_bytes: int) -> None:
        """Wait until there is room for so many bytes."""
        served = anyio.Event()
        request = (num_bytes, served)
        self.is_awaited = True
        self.room.waiting.append(request)
        self.room.serve_next()
        try:
            await served.wait()
        finally:
            if served.is_set():
                self.num_bytes, self.is_awaited = num_bytes, False
            else:
                self.room.waiting.remove(request)
                self.room.serve_next()

    def give_back(self) -> None:
        """Leave the room to others."""
        self.room.num_free += self.num_bytes
        self.num_bytes = 0
        self.room.serve_next()


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _length(headers: Headers) -> int | None:
    announced = headers.get("content-length", "")
    return int(announced[:20]) if announced.isascii() and announced.isdigit() else None


def _starting_with(message: Message, receive: Receive) -> Receive:
    """Receives the message first, and then what `receive` does."""
    pending = [message]

    async def receive_next() -> Message:
        return pending.pop() if pending else await receive()

    return receive_next
