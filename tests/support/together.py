"""Calls that happen at the same moment, for tests of what must hold under concurrency."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.support.waiting import WAIT_S

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What the calls return, in their order, each made by a thread of its own once all threads are there."""
    barrier = threading.Barrier(len(calls))

    def call(function: Callable[[], T]) -> T:
        barrier.wait(timeout=WAIT_S)
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))
