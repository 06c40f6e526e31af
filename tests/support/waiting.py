"""Waiting for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

WAIT_S = 180.0
"""How long whatever must come is waited for: many times what it takes, on a machine that does much else besides."""

T = TypeVar("T")


def wait_for(found: Callable[[], T], what: str, timeout_s: float = WAIT_S) -> T:
    """The first true thing that `found` returns; fails after `timeout_s`, saying what didn't happen."""
    deadline = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"in {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return value
