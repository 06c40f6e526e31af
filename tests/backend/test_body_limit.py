from __future__ import annotations

import http.client
import json
from base64 import b64encode
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from backend.body_limit import MAX_BODY_BYTES, LimitBody
from tests.backend.conftest import PASSWORD
from tests.support.processes import Backend
from tests.support.waiting import WAIT_S


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
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }

    async def receive(self) -> Message:
        if self.num_read == len(self._parts):
            return {"type": "http.disconnect"}
        self.num_read += 1
        more = self.num_read < len(self._parts)
        return {"type": "http.request", "body": self._parts[self.num_read - 1], "more_body": more}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def app(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        for _ in range(2):
            self.heard.append(await receive())

    def ask(self) -> None:
        limited = LimitBody(self.app, {"/search": 5})
        anyio.run(lambda: limited(self._scope, self.receive, self.send))

    @property
    def problem(self) -> dict[str, Any]:
        assert self.sent[0]["status"] == 413
        return dict(json.loads(self.sent[1]["body"]))


def test_a_body_with_too_large_a_content_length_is_refused_unread() -> None:
    asker = Caller(b"123456", headers={"content-length": "6"})
    asker.ask()
    assert (asker.problem["error"], asker.num_read, asker.heard) == ("body_too_large", 0, [])
    assert "larger than 5 bytes" in asker.problem["detail"]


def test_a_body_that_grows_too_large_is_refused_at_the_limit() -> None:
    asker = Caller(b"123", b"456", b"789")
    asker.ask()
    assert (asker.problem["error"], asker.num_read, asker.heard) == ("body_too_large", 2, [])


def test_a_body_within_the_limit_reaches_the_route_and_later_messages_do_too() -> None:
    asker = Caller(b"123", b"45", headers={"content-length": "5"})
    asker.ask()
    assert asker.heard == [{"type": "http.request", "body": b"12345"}, {"type": "http.disconnect"}]
    assert asker.sent == []


def test_a_caller_who_disconnects_in_the_middle_never_reaches_the_route() -> None:
    asker = Caller()
    asker.ask()
    assert (asker.heard, asker.sent) == ([], [])


def test_other_paths_have_no_limit() -> None:
    asker = Caller(b"123", b"456", path="/predict")
    asker.ask()
    assert [message["body"] for message in asker.heard] == [b"123", b"456"]


@pytest.mark.parametrize("path", MAX_BODY_BYTES)
def test_the_backend_refuses_by_content_length(backend: Backend, path: str) -> None:
    address = backend.client.base_url
    connection = http.client.HTTPConnection(address.host, address.port, timeout=WAIT_S)
    connection.putrequest("POST", path)
    connection.putheader("Authorization", "Basic " + b64encode(f"ls:{PASSWORD}".encode()).decode())
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(MAX_BODY_BYTES[path] + 1))
    connection.endheaders()  # and nothing behind them
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]) == (413, "body_too_large")
    connection.close()
