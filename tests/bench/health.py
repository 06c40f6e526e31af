"""How long `/health` takes while the worker beside it has all it can do, and while it has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http.client import HTTPConnection

import numpy as np
import torch

from tests.bench.clips import WAV, Clips
from tests.bench.rows import Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import medians
from tests.bench.warm_workers import WarmWorkers, broker
from tests.support.processes import Backend

HEALTH = Case(
    "/health, p99, while the worker is saturated",
    "s",
    "the same while it is idle",
    Goal(ratio_at_most=2, ours_at_most=0.1),
    "ours ÷ peer",
)
PAUSE_S = 0.02
_NUM_WAITING = 48
"""Tasks that lie in the queue at least, so that the worker never runs out."""

_LOOK_EVERY = 10
_CLIP_S = 1.0
"""A window is filled up to 10 s in any case: shorter files are as much work for the model, and less to write."""


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """A backend and a worker on the same cores; idle and saturated in turns."""
    folder = effort.folder / "health"
    num_requests = effort.of(300, 20)
    with broker(folder / "redis") as url:
        workers = WarmWorkers(
            folder / "installation", effort.checkpoint, num_threads=torch.get_num_threads(), broker_url=url
        )
        with workers:
            backend = workers.serve()
            busy = Busy(workers)
            found = medians(
                {
                    "idle": lambda: p99(backend, num_requests),
                    "busy": lambda: busy.p99(backend, num_requests),
                },
                effort.of(3, 1),
                warm_ups=effort.of(1, 0),
            )
    return {HEALTH: Figures(found["busy"], found["idle"])}


class Busy:
    """Keeps workers saturated while requests are made."""

    def __init__(self, workers: WarmWorkers) -> None:
        self._workers = workers
        self._clips = Clips(WAV, duration_s=_CLIP_S)

    def p99(self, backend: Backend, num_requests: int) -> float:
        """Seconds, while there is work all the time; afterwards there is none."""
        self._top_up()
        spent: list[float] = []
        while len(spent) < num_requests:
            spent += _spent(backend, min(_LOOK_EVERY, num_requests - len(spent)))
            if not self._workers.num_open():
                raise RuntimeError("the worker ran out of work")
            self._top_up()
        self._workers.finish()
        return _p99(spent)

    def _top_up(self) -> None:
        missing = _NUM_WAITING - self._workers.num_open()
        if missing > 0:
            self._workers.ask_for(self._workers.put_on_disk(self._clips.take(missing)))


def p99(backend: Backend, num_requests: int) -> float:
    """Seconds that the slowest hundredth of the requests takes at least."""
    return _p99(_spent(backend, num_requests))


def _p99(spent: list[float]) -> float:
    return float(np.percentile(spent, 99))


def _spent(backend: Backend, num_requests: int) -> list[float]:
    """Seconds of each of the requests, one every now and then."""
    url = backend.client.base_url
    connection = HTTPConnection(url.host, url.port, timeout=60)  # the least of clients: its own time counts too
    spent = []
    try:
        for _ in range(num_requests):
            began = time.perf_counter()
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            spent.append(time.perf_counter() - began)
            if answer.status != 200:
                raise RuntimeError(f"/health answers {answer.status}")
            time.sleep(PAUSE_S)
    finally:
        connection.close()
    return spent


SECTION = Section((HEALTH,), measure, in_quick=False)
