"""Logging: one JSON object a line, without tracebacks, tokens or the queries of URLs.

What a line is about (project, task, job, model version) needs no naming at each call: `about` says it for all lines
that are logged inside, other libraries' too, and `carry` takes it along into another thread.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

LEAST_SECRET_CHARS = 4
"""What is shorter isn't looked for: taken out of every line, it would leave nothing to read."""

MOST_CHARS = 4000
"""What is longer may be a request's body, or somebody's attempt to keep the logger busy."""

_SUBJECTS = ("project", "task", "job", "model_version")
_NAMES = (
    r"(?:password|passwd|secret|token|api[ _-]?key|access[ _-]?key|signature|credential|authorization|cookie|sessionid)"
)
_URL = r"\b\w{1,32}://"
_HIDDEN = (
    (re.compile(rf"({_URL}[^\s?\"']+|(?<![\w/])/[^\s?\"']*)\?[^\s\"']+"), r"\1?…"),  # queries may be signatures
    (re.compile(rf"({_URL})[^\s/]*@"), r"\1…@"),
    (re.compile(r"(?i)\b(token|bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 …"),
    # `name=value`, `"name": "value"`; and `Name: value` where the value is no word.
    (
        re.compile(rf"(?i)({_NAMES}[\w-]*(?:\s?=\s?|[\"']\s?:\s?))(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&)}}\]]+)"),
        r"\1…",
    ),
    (re.compile(rf"(?i)({_NAMES}[\w-]*:\s)(?!token|bearer|basic)\S*\d\S*"), r"\1…"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "…"),  # JSON Web Tokens, wherever they stand
)

_subject: ContextVar[Mapping[str, Any] | None] = ContextVar("subject", default=None)

P = ParamSpec("P")
T = TypeVar("T")


def set_up_logging(level: str, secrets: Iterable[str] = ()) -> None:
    """Send everything, other libraries' lines and warnings too, to standard error in the one format.

    `secrets` are taken out of every line, in whatever form and place they come.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = lambda _kind, error, _trace: logging.critical("stopped by an error", exc_info=error)
    threading.excepthook = lambda failed: logging.critical(
        "a thread was stopped by an error", exc_info=failed.exc_value
    )
    for noisy in ("celery.app.trace", "celery.worker.strategy", "filelock", "httpcore", "httpx", "kombu", "urllib3"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


@contextmanager
def about(**subject: Any) -> Iterator[None]:
    """All that is logged inside, in this thread, is about this: some of project, task, job and model_version."""
    outer = _subject.set({**(_subject.get() or {}), **subject})
    try:
        yield
    finally:
        _subject.reset(outer)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """The function, to be called in another thread: what it logs there is about what is being logged about here."""
    subject = _subject.get() or {}

    def carried(*arguments: P.args, **named: P.kwargs) -> T:
        with about(**subject):
            return function(*arguments, **named)

    return carried


class JsonLines(logging.Formatter):
    """`{"at", "level", "logger", "message"}`, with project, task, job and model version where they are known."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        long_enough = sorted({secret for secret in secrets if len(secret) >= LEAST_SECRET_CHARS}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, long_enough))) if long_enough else None

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        subject = _subject.get() or {}
        known = {name: getattr(record, name, subject.get(name)) for name in _SUBJECTS}
        line |= {name: value for name, value in known.items() if value is not None}
        if record.exc_info and record.exc_info[1]:
            line["exception"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)

    def _redact(self, message: str) -> str:
        return redact(self._secrets.sub("…", message) if self._secrets else message)


def describe(error: BaseException) -> str:
    """The exception's type and where it was raised: no message, which may quote what it failed on."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames[-3:]]
    return f"{type(error).__name__} at {' > '.join(places)}" if places else type(error).__name__


def redact(text: str) -> str:
    """The text without URL queries, user names and passwords in URLs, authorization headers, and named secrets.

    What is longer than a log line should be is cut between two words, of which half a one might be a secret.
    """
    if len(text) > MOST_CHARS:
        text = text[:MOST_CHARS].rpartition(" ")[0] + " …"
    for secret, shown in _HIDDEN:
        text = secret.sub(shown, text)
    return text
