"""How often Label Studio was asked: by method, route and status code, what the SDK repeats by itself included."""

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
        self._turn = threading.Lock()

    def add(self, method: str, path: str, code: str) -> None:
        """Count a request for that path."""
        with self._turn:
            self._counts[method, route_of(path), code] += 1

    def counts(self) -> dict[tuple[str, str, str], int]:
        """How many requests there were of each method, route and code."""
        with self._turn:
            return dict(self._counts)


class TalliedClient(httpx.Client):
    """An httpx client whose every request is counted: each try, each page, each exchange of a token."""

    def __init__(self, tally: RequestTally, **options: Any) -> None:
        super().__init__(**options)
        self._tally = tally

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """The answer; raises what httpx raises, which is counted as `NO_ANSWER`."""
        code = NO_ANSWER
        try:
            response = super().send(request, **options)
            code = str(response.status_code)
            return response
        finally:
            self._tally.add(request.method, request.url.path, code)


def route_of(path: str) -> str:
    """The path of an API call with `{id}` for every number, such as `/api/tasks/{id}`: no more routes than calls.

    A path prefix of LABEL_STUDIO_URL is left out; what is neither a word nor a number becomes `{}`.
    """
    _, api, below = f"{path}/".partition("/api/")
    if not api:
        return "other"
    return "/api/" + "/".join(map(_part, below.strip("/").split("/")))


def _part(segment: str) -> str:
    if segment.isascii() and segment.isdigit():
        return "{id}"
    return segment if _WORD.fullmatch(segment) else "{}"
