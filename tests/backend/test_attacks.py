"""Attacks on a real backend, through sockets: each is refused in a sentence, and `/health` goes on answering."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from clapboard.labels.label_config import MAX_LABELS
from clapboard.untrusted import MAX_VALUES
from tests.backend.conftest import ENCODER
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Backend, Installation
from tests.support.waiting import WAIT_S, wait_for

MAX_BODY_BYTES = 32_000_000
MAX_CONNECTIONS = 24
BODY_TIMEOUT_S = 2.0
ROUTES = {"/predict": 32_000_000, "/webhook": 32_000_000, "/train": 32_000_000, "/search": 32_000_000}
ROUTES |= {"/setup": 8_000_000, "/versions": 1_000_000, "/nowhere": 1_000_000}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A backend with small bounds, and a worker announced."""
    bounds = {"max_body_mb": MAX_BODY_BYTES / 1e6, "body_timeout_s": BODY_TIMEOUT_S, "max_connections": MAX_CONNECTIONS}
    with Installation(tmp_path_factory.mktemp("attacked"), "mini", predict_wait_s=0.1, **bounds) as installation:
        installation.store.catalog.announce_encoder(ENCODER)
        yield installation.serve()


@contextmanager
def upload(backend: Backend, path: str, *headers: str, body: bytes = b"") -> Iterator[socket.socket]:
    """A connection with a request's headers and the beginning of its body."""
    address = backend.client.base_url
    with socket.create_connection((address.host, address.port or 80), timeout=WAIT_S) as connection:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        connection.sendall(body)
        yield connection


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def health_s(backend: Backend) -> float:
    """Seconds that `/health` takes, through a connection of its own."""
    address = backend.client.base_url
    began = time.monotonic()
    connection = http.client.HTTPConnection(address.host, address.port, timeout=WAIT_S)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - began


def resident(backend: Backend) -> int:
    """Bytes of memory that the process holds."""
    status = Path(f"/proc/{backend.process.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def answered_meanwhile(backend: Backend, path: str, body: bytes) -> tuple[Any, int]:
    """The answer to the body, and how many times `/health` answered meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(backend.client.post, path, content=body, headers={"Content-Type": "application/json"})
        num_answered = 0
        while not posted.done():
            health_s(backend)
            num_answered += 1
        return posted.result(), num_answered


@pytest.mark.parametrize(("path", "bound"), ROUTES.items())
def test_every_route_refuses_a_larger_body_unread(attacked: Backend, path: str, bound: int) -> None:
    with upload(attacked, path, f"Content-Length: {bound + 1}") as connection:
        status, problem = answer(connection)
    assert (status, problem["error"]) == (413, "body_too_large")
    assert f"larger than {bound} bytes" in problem["detail"]


def test_a_body_in_chunks_is_refused_at_the_bound(attacked: Backend) -> None:
    chunk = b"100000\r\n" + 0x100000 * b" " + b"\r\n"
    with upload(attacked, "/versions", "Transfer-Encoding: chunked", body=chunk) as connection:
        assert answer(connection)[0] == 413


def test_aborted_uploads_leave_no_memory_behind(attacked: Backend) -> None:
    before = resident(attacked)
    for _ in range(2):
        with ExitStack() as uploads:
            for path in ("/predict", "/webhook", "/train"):
                length = f"Content-Length: {MAX_BODY_BYTES}"
                part = MAX_BODY_BYTES // 2 * b"x"
                uploads.enter_context(upload(attacked, path, length, body=part if path != "/train" else b"x"))
            assert health_s(attacked) < WAIT_S
    wait_for(lambda: resident(attacked) < before + MAX_BODY_BYTES // 2, "the memory isn't given back")


def test_a_large_hostile_body_doesn_t_hold_up_the_event_loop(attacked: Backend) -> None:
    tasks = b"[" + b"[]," * (MAX_VALUES // 8) + b"[]]"
    body = b'{"label_config": %s, "tasks": %s}' % (json.dumps(CHOICES).encode(), tasks)
    refused, num_answered = answered_meanwhile(attacked, "/predict", body)
    assert (refused.status_code, refused.json()["error"]) == (422, "request")
    assert "body.tasks.0" in refused.json()["detail"]
    assert num_answered > 10  # one or two if it is read at once


def test_a_label_config_of_too_many_labels_is_refused_in_a_sentence(attacked: Backend) -> None:
    choices = "".join(f'<Choice value="{number}"/>' for number in range(MAX_LABELS + 1))
    refused = attacked.setup(CHOICES.replace("</Choices>", f"{choices}</Choices>"))
    assert (refused.status_code, refused.json()["error"]) == (422, "label_config")
    assert f"more than {MAX_LABELS}" in refused.json()["detail"]


def test_a_large_label_config_is_read_beside_the_event_loop(attacked: Backend) -> None:
    choices = "".join(f'<Choice value="n{number}"/>' for number in range(MAX_LABELS // 2))
    config = CHOICES.replace("</Choices>", f"{choices}</Choices>")
    body = json.dumps({"project": "1.1", "schema": config}).encode()
    accepted, num_answered = answered_meanwhile(attacked, "/setup", body)
    assert accepted.status_code == 200
    assert num_answered > 3


def test_half_sent_bodies_and_silent_connections_make_room_for_new_ones(attacked: Backend) -> None:
    address = attacked.client.base_url
    with ExitStack() as connections:
        halves = [
            connections.enter_context(upload(attacked, "/predict", "Content-Length: 1000", body=b"{"))
            for _ in range(3 * MAX_CONNECTIONS)
        ]
        for _ in range(2 * MAX_CONNECTIONS):
            connections.enter_context(socket.create_connection((address.host, address.port or 80), timeout=WAIT_S))
        began = time.monotonic()
        for _ in range(10):
            health_s(attacked)
        assert time.monotonic() - began < BODY_TIMEOUT_S  # none waited until the others' time was up
        halves[0].settimeout(WAIT_S)
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert halves[0].recv(1) != b""  # it was closed


def test_a_body_that_stops_coming_is_refused_in_time_and_its_connection_closed(attacked: Backend) -> None:
    with upload(attacked, "/webhook", "Content-Length: 1000", body=b"{") as connection:
        status, problem = answer(connection)
        assert (status, problem["error"]) == (408, "body_too_slow")
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert connection.recv(1) != b""


def test_many_refused_tasks_are_recorded_at_once(attacked: Backend) -> None:
    tasks = [{"id": number, "data": {"audio": "/etc/passwd"}} for number in range(1, 3_001)]
    assert attacked.results(CHOICES, tasks) == [[]] * len(tasks)


def test_a_half_sent_body_doesn_t_hold_up_the_end(attacked: Backend) -> None:
    with upload(attacked, "/predict", "Content-Length: 1000", body=b"{") as connection:
        health_s(attacked)
        assert attacked.process.stop() == 0
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert connection.recv(1) != b""  # closed at once, not answered when its time was up
