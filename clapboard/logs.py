"""Logging: one JSON object per line, or a sentence on a terminal, without tracebacks, tokens or URL queries.

`about` names the subject (project, task, job, model version) of all lines logged within it, other libraries' included.
`carry` keeps the subject in another thread.
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
from typing import Any, ParamSpec, TextIO, TypeVar

LEAST_SECRET_CHARS = 4
"""Shorter secrets aren't removed: replacing them wherever they occur would make lines unreadable."""

MOST_CHARS = 4000
"""Longer messages are cut: they may be a request's body, or an attempt to keep the logger busy."""

_SUBJECTS = ("project", "task", "job", "model_version")
_NAMES = (
    r"(?:password|passwd|secret|token|api[ _-]?key|access[ _-]?key|signature|credential|authorization|cookie|sessionid)"
)
_URL = r"\b\w{1,32}://"
_HIDDEN = (
    (re.compile(rf"({_URL}[^\s?\"']+|(?<![\w/])/[^\s?\"']*)\?[^\s\"']+"), r"\1?…"),  # a query may be a signature
    (re.compile(rf"({_URL})[^\s/]*@"), r"\1…@"),
    (re.compile(r"(?i)\b(token|bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 …"),
    # `name=value` and `"name": "value"`; below, `Name: value` if the value contains a digit.
    (
        re.compile(rf"(?i)({_NAMES}[\w-]*(?:\s?=\s?|[\"']\s?:\s?))(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&)}}\]]+)"),
        r"\1…",
    ),
    (re.compile(rf"(?i)({_NAMES}[\w-]*:\s)(?!token|bearer|basic)\S*\d\S*"), r"\1…"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "…"),  # JSON Web Tokens, anywhere
)

_subject: ContextVar[Mapping[str, Any] | None] = ContextVar("subject", default=None)

P = ParamSpec("P")
T = TypeVar("T")


def set_up_logging(level: str, secrets: Iterable[str] = (), *, as_json: bool = False) -> bool:
    """Log everything, including other libraries' lines and warnings, to standard error. Returns whether as JSON.

    Lines are text on a terminal, unless `as_json`, and JSON everywhere else. `secrets` are removed from every line.
    """
    as_json = as_json or sys.stderr is None or not sys.stderr.isatty()
    handler = StandardError()
    handler.setFormatter(JsonLines(secrets) if as_json else TextLines(secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = lambda _kind, error, _trace: logging.critical("stopped by an error", exc_info=error)
    threading.excepthook = lambda failed: logging.critical(
        "a thread was stopped by an error", exc_info=failed.exc_value
    )
    noisy_ones = ("celery.app.trace", "celery.worker.strategy", "filelock", "httpcore", "httpx", "kombu", "urllib3")
    for noisy in noisy_ones if as_json else (*noisy_ones, "celery", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    return as_json


def is_set_up() -> bool:
    """Whether `set_up_logging` was called in this process."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


@contextmanager
def about(**subject: Any) -> Iterator[None]:
    """Context manager: the subject of all lines logged in it by this thread: project, task, job or model_version."""
    outer = _subject.set({**(_subject.get() or {}), **subject})
    try:
        yield
    finally:
        _subject.reset(outer)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """The function, to be called in another thread, where its lines have the same subject as here."""
    subject = _subject.get() or {}

    def carried(*arguments: P.args, **named: P.kwargs) -> T:
        with about(**subject):
            return function(*arguments, **named)

    return carried


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which may have been replaced since logging was set up.

    Lines are dropped if there is none, as in a process that is ending.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # a plain attribute in the base class
        """The current standard error."""
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, if standard error is open."""
        if sys.stderr is not None and not sys.stderr.closed:
            super().emit(record)


class JsonLines(logging.Formatter):
    """`{"at", "level", "logger", "message"}`, with project, task, job and model version where known."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        long_enough = sorted({secret for secret in secrets if len(secret) >= LEAST_SECRET_CHARS}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, long_enough))) if long_enough else None

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.line(record), ensure_ascii=False, default=str)

    def line(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line's fields, without secrets."""
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        subject = _subject.get() or {}
        subjects = {name: getattr(record, name, subject.get(name)) for name in _SUBJECTS}
        line |= {name: value for name, value in subjects.items() if value is not None}
        if record.exc_info and record.exc_info[1]:
            line["exception"] = describe(record.exc_info[1])
        return line

    def _redact(self, message: str) -> str:
        return redact(self._secrets.sub("…", message) if self._secrets else message)


class TextLines(JsonLines):
    """`12:34:56 WARNING message (project 7, task 3)`: the same fields as text, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record)
        subject = ", ".join(f"{name.replace('_', ' ')} {line[name]}" for name in _SUBJECTS if name in line)
        parts = [
            line["message"],
            f"({subject})" if subject else "",
            f"[{line['exception']}]" if "exception" in line else "",
        ]
        level = "" if record.levelno == logging.INFO else f" {record.levelname}"
        text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))}{level} {' '.join(filter(None, parts))}"
        # A name in a message must not be able to start a new line or control the terminal.
        return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def describe(error: BaseException) -> str:
    """The exception's type and where it was raised, without its message, which may quote secrets."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames[-3:]]
    return f"{type(error).__name__} at {' > '.join(places)}" if places else type(error).__name__


def redact(text: str) -> str:
    """The text without URL queries, user names and passwords in URLs, authorization headers, and named secrets.

    A text that is too long is cut between two words, since half a word might be part of a secret.
    """
    if len(text) > MOST_CHARS:
        text = text[:MOST_CHARS].rpartition(" ")[0] + " …"
    for secret, shown in _HIDDEN:
        text = secret.sub(shown, text)
    return text
