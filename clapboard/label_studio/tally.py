"""Counts of requests to Label Studio by method, route and status code, including the SDK's own retries."""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import Any

import httpx

NO_ANSWER = "none"
"""The code of a request that Label Studio didn't answer."""

_WORD = re.compile(r"[a-z]+(-[a-z]+)*")


class RequestTally:
    """Counts requests. Threads and clients may share it."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, method: str, path: str, code: str) -> None:
        """Count a request to that path."""
        with self._lock:
            self._counts[method, route_of(path), code] += 1

    def counts(self) -> dict[tuple[str, str, str], int]:
        """By method, route and code, the number of requests."""
        with self._lock:
            return dict(self._counts)


class TalliedClient(httpx.Client):
    """An httpx client that counts every request: each attempt, page and token exchange."""

    def __init__(self, tally: RequestTally, **options: Any) -> None:
        super().__init__(**options)
        self._tally = tally

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """The answer. Raises httpx's errors, which are counted as `NO_ANSWER`."""
        code = NO_ANSWER
        try:
            response = super().send(request, **options)
            code = str(response.status_code)
            return response
        finally:
            self._tally.add(request.method, request.url.path, code)


def route_of(path: str) -> str:
    """The path of an API call with `{id}` for every number, such as `/api/tasks/{id}`, to bound the number of routes.

    A path prefix of LABEL_STUDIO_URL is left out. A segment that is neither a word nor a number becomes `{}`.
    """
    _, api, below = f"{path}/".partition("/api/")
    if not api:
        return "other"
    return "/api/" + "/".join(map(_part, below.strip("/").split("/")))


def _part(segment: str) -> str:
    if segment.isascii() and segment.isdigit():
        return "{id}"
    return segment if _WORD.fullmatch(segment) else "{}"
