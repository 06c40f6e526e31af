"""How long `/health` takes while somebody means harm, and what memory the attack leaves behind.

Label Studio gives `/health` one second and asks before every prediction. Each attack is one that stood still an earlier
backend, or filled its memory.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from clapboard.labels.label_config import MAX_LABELS
from clapboard.store.catalog import Encoder
from clapboard.untrusted import MAX_VALUES
from tests.bench.rows import BYTES, Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Backend, Installation
from tests.support.waiting import WAIT_S, wait_for

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
MB = 1_000_000
PAUSE_S = 0.02

_WITHIN = Goal(ours_at_most=0.05)
HALF_SENT = Case("/health, p99, beside 1,300 half-sent bodies", "s", goal=_WITHIN)
ABORTED = Case("/health, p99, beside four aborted uploads of 400 MB in chunks", "s", goal=_WITHIN)
VALUES = Case("/health, p99, beside a body of as many values as are read", "s", goal=_WITHIN)
CONFIG = Case("/health, p99, beside a label config of as many labels as are read", "s", goal=_WITHIN)
ESCAPES = Case("/health, p99, beside a data: URI of 20 million %00", "s", goal=_WITHIN)
REFUSED = Case("/health, p99, beside 3,000 refused tasks", "s", goal=_WITHIN)
LEFT = Case("memory more than before, after all these attacks", BYTES, goal=Goal(ours_at_most=64e6))


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """One backend, attacked in one way after the other."""
    times = effort.of(3, 1)
    with Installation(effort.folder / "attacks", "mini", predict_wait_s=0) as installation:
        installation.store.catalog.announce_encoder(ENCODER)
        backend = installation.serve()
        requests = {
            VALUES: ("/predict", many_values(effort.of(MAX_VALUES, MAX_VALUES // 50))),
            CONFIG: ("/setup", many_labels(effort.of(MAX_LABELS - 10, 100))),
            ESCAPES: ("/predict", many_escapes(effort.of(20_000_000, 100_000))),
            REFUSED: ("/predict", refused_tasks(effort.of(3_000, 30))),
        }
        backend.predict(CHOICES, [{"id": 1, "data": {"audio": "https://host.example/1.wav"}}])
        before = resident(backend)
        found: dict[Case, Outcome] = {}
        found[ABORTED] = Figures(p99(backend, lambda: aborted_uploads(backend, effort.of(400, 4) * MB), times))
        for case, (path, body) in requests.items():
            found[case] = Figures(p99(backend, partial(post, backend, path, body), times))
        with half_sent_bodies(backend, effort.of(1_300, 40)):
            found[HALF_SENT] = Figures(p99(backend, lambda: time.sleep(effort.of(5, 1)), 1))
        found[LEFT] = Figures(memory_left(backend, before, effort.of(10, 1)))
    return found


def p99(backend: Backend, attack: Callable[[], object], times: int) -> float:
    """Seconds that the slowest hundredth of the requests takes at least while the attacks go on."""
    spent = []
    with ThreadPoolExecutor(1) as pool:
        attacks = pool.submit(lambda: [attack() for _ in range(times)])
        while not attacks.done() or not spent:
            spent.append(health_s(backend))
            time.sleep(PAUSE_S)
        attacks.result()
    return float(np.percentile(spent, 99))


def health_s(backend: Backend) -> float:
    """Seconds of one request, through a connection of its own."""
    url = backend.client.base_url
    began = time.perf_counter()
    connection = http.client.HTTPConnection(url.host, url.port, timeout=60)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise RuntimeError(f"/health answers {status}")
    return time.perf_counter() - began


def post(backend: Backend, path: str, body: bytes) -> int:
    """The status of the answer. The body is sent by the system, so that this process can measure meanwhile."""
    url = backend.client.base_url
    connection = http.client.HTTPConnection(url.host, url.port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status


def aborted_uploads(backend: Backend, num_bytes: int) -> None:
    """Four uploads at once, which end in the middle, or when they are refused."""
    chunk = b"%x\r\n" % MB + MB * b" " + b"\r\n"

    def upload(path: str) -> None:
        with connected(backend) as connection:
            connection.sendall(_head(path, "Transfer-Encoding: chunked"))
            try:
                for _ in range(num_bytes // MB):
                    connection.sendall(chunk)
            except OSError:  # refused
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, ("/predict", "/webhook", "/train", "/setup")))


@contextmanager
def half_sent_bodies(backend: Backend, count: int) -> Iterator[None]:
    """So many connections with half a body each."""
    with ExitStack() as connections:
        for _ in range(count):
            connection = connections.enter_context(connected(backend))
            connection.sendall(_head("/predict", "Content-Length: 1000") + b"{")
        yield


def connected(backend: Backend) -> socket.socket:
    """A new connection."""
    url = backend.client.base_url
    return socket.create_connection((url.host, url.port or 80), timeout=60)


def many_values(count: int) -> bytes:
    """A request of so many empty lists and commas."""
    return b'{"label_config": "", "tasks": [%s[]]}' % ((count // 2 - 10) * b"[],")


def many_labels(count: int) -> bytes:
    """A request with so many labels."""
    choices = "".join(f'<Choice value="n{number}"/>' for number in range(count))
    return json.dumps({"project": "1.1", "schema": CHOICES.replace("</Choices>", f"{choices}</Choices>")}).encode()


def many_escapes(count: int) -> bytes:
    """A request for one task whose audio is that many zeros."""
    task = {"id": 2, "data": {"audio": f"data:,{count * '%00'}"}}
    return json.dumps({"project": "1.1", "label_config": CHOICES, "tasks": [task]}).encode()


def refused_tasks(count: int) -> bytes:
    """A request for tasks whose audio may not be read."""
    tasks = [{"id": 10 + number, "data": {"audio": "/etc/passwd"}} for number in range(count)]
    return json.dumps({"project": "1.1", "label_config": CHOICES, "tasks": tasks}).encode()


def memory_left(backend: Backend, before: int, patience_s: float) -> float:
    """Bytes more than before, once they change no more, after a time in which they are given back."""
    lowest = resident(backend)

    def is_settled() -> bool:
        nonlocal lowest
        lowest, last = min(lowest, resident(backend)), lowest
        return lowest == last

    time.sleep(patience_s)
    wait_for(is_settled, "the memory goes on changing", WAIT_S)
    return float(max(0, lowest - before))


def resident(backend: Backend) -> int:
    """Bytes of memory that the process holds."""
    status = Path(f"/proc/{backend.process.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def _head(path: str, length: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", length, "", ""]
    return "\r\n".join(lines).encode()


SECTION = Section((ABORTED, VALUES, CONFIG, ESCAPES, REFUSED, HALF_SENT, LEFT), measure)
