from __future__ import annotations

import json
from typing import Any

import anyio
from anyio.abc import TaskStatus
from starlette.types import Message, Receive, Scope, Send

from backend.body_limit import BODY, BodyBounds, LimitBody
from clapboard.freed_memory import FreedMemory
from tests.support.waiting import WAIT_S

LARGE = 70_000
BOUNDS = BodyBounds({"/search": 5, "/predict": LARGE}, others=7, timeout_s=WAIT_S, room=LARGE)


class Caller:
    """Sends the parts of a body, and keeps the answer."""

    def __init__(self, *parts: bytes, headers: dict[str, str] | None = None, path: str = "/search") -> None:
        self.num_read = 0
        self.sent: list[Message] = []
        self.heard: list[Message] = []
        self._parts = parts
        self._scope: Scope = {
            "type": "http",
            "path": path,
            "method": "POST",
            "headers": [
                (name.encode(), value.encode()) for name, value in (headers or {"transfer-encoding": "chunked"}).items()
            ],
        }

    async def receive(self) -> Message:
        if self.num_read == len(self._parts):
            return {"type": "http.disconnect"}
        self.num_read += 1
        more = self.num_read < len(self._parts)
        return {"type": "http.request", "body": self._parts[self.num_read - 1], "more_body": more}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def app(self, scope: Scope, receive: Receive, _send: Send) -> None:
        for _ in range(2):
            self.heard.append(await receive() | {"body": scope.get(BODY)})

    def ask(self, bounds: BodyBounds = BOUNDS) -> None:
        anyio.run(self.ask_within, LimitBody(self.app, bounds, FreedMemory()))

    async def ask_within(self, limited: LimitBody) -> None:
        await limited(self._scope, self.receive, self.send)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def problem(self) -> dict[str, Any]:
        return dict(json.loads(self.sent[1]["body"]))


class SlowCaller(Caller):
    """Never sends the last part."""

    async def receive(self) -> Message:
        if self.num_read + 1 == len(self._parts):
            await anyio.sleep_forever()
        return await super().receive()


def test_a_body_with_too_large_a_content_length_is_refused_unread() -> None:
    asker = Caller(b"123456", headers={"content-length": "6"})
    asker.ask()
    assert (asker.status, asker.problem["error"], asker.num_read, asker.heard) == (413, "body_too_large", 0, [])
    assert "larger than 5 bytes" in asker.problem["detail"]


def test_a_body_that_grows_too_large_is_refused_at_the_limit() -> None:
    asker = Caller(b"123", b"456", b"789")
    asker.ask()
    assert (asker.problem["error"], asker.num_read, asker.heard) == ("body_too_large", 2, [])


def test_a_body_within_the_limit_reaches_the_route_and_later_messages_do_too() -> None:
    asker = Caller(b"123", b"45", headers={"content-length": "5"})
    asker.ask()
    assert [(message["type"], message["body"]) for message in asker.heard] == [
        ("http.request", b"12345"),
        ("http.disconnect", b"12345"),
    ]
    assert asker.sent == []


def test_a_caller_who_disconnects_in_the_middle_never_reaches_the_route() -> None:
    asker = Caller()
    asker.ask()
    assert (asker.heard, asker.sent) == ([], [])


def test_other_paths_have_a_limit_too() -> None:
    asker = Caller(b"1234", b"5678", path="/nowhere")
    asker.ask()
    assert (asker.status, asker.heard) == (413, [])


def test_requests_without_a_body_and_health_aren_t_read() -> None:
    for asker in (Caller(headers={"content-length": "0"}), Caller(b"1234", b"5678", path="/health")):
        asker.ask()
        assert (len(asker.heard), asker.sent) == (2, [])


def test_a_body_that_stops_coming_is_refused() -> None:
    asker = SlowCaller(b"1", b"2")
    asker.ask(BodyBounds({}, timeout_s=0.05))
    assert (asker.status, asker.problem["error"], asker.heard) == (408, "body_too_slow", [])


def test_a_large_body_waits_for_room_and_small_ones_don_t() -> None:
    first, second, small = (
        SlowCaller(b"x", b"", headers={"content-length": str(LARGE)}, path="/predict"),
        Caller(LARGE * b"x", headers={"content-length": str(LARGE)}, path="/predict"),
        Caller(b"xx", headers={"content-length": "2"}, path="/predict"),
    )

    async def ask_all() -> None:
        limited = LimitBody(small.app, BOUNDS, FreedMemory())
        async with anyio.create_task_group() as group:
            first_caller = await group.start(cancellable, first, limited)
            await until(lambda: first.num_read == 1)
            group.start_soon(second.ask_within, limited)
            await small.ask_within(limited)
            assert (len(small.heard), second.num_read) == (2, 0)
            first_caller.cancel()
            await until(lambda: second.num_read > 0)

    anyio.run(ask_all)


async def cancellable(
    caller: Caller, limited: LimitBody, *, task_status: TaskStatus[anyio.CancelScope] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.CancelScope() as scope:
        task_status.started(scope)
        await caller.ask_within(limited)


async def until(happened: Any) -> None:
    with anyio.fail_after(WAIT_S):
        while not happened():
            await anyio.sleep(0)
