"""Logging: one JSON object a line, without tracebacks, tokens or the queries of URLs."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback

_QUERY = re.compile(r"(\w+://[^\s?\"']+)\?[^\s\"']*")
_CREDENTIALS = re.compile(r"(?i)\b(token|bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_USERINFO = re.compile(r"(\w+://)[^\s/]*@")
_SUBJECTS = ("project", "task", "job", "model_version")


def set_up_logging(level: str) -> None:
    """Send everything, other libraries' lines too, to standard error in the one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    sys.excepthook = lambda _kind, error, _trace: logging.critical("stopped by an error", exc_info=error)
    for noisy in ("celery.app.trace", "celery.worker.strategy", "filelock", "httpcore", "httpx", "kombu", "urllib3"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class JsonLines(logging.Formatter):
    """`{"at", "level", "logger", "message"}`, with project, task, job and model version where a line names them."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        line |= {name: getattr(record, name) for name in _SUBJECTS if hasattr(record, name)}
        if record.exc_info and record.exc_info[1]:
            line["exception"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def describe(error: BaseException) -> str:
    """The exception's type and where it was raised: no message, which may quote what it failed on."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames[-3:]]
    return f"{type(error).__name__} at {' > '.join(places)}" if places else type(error).__name__


def redact(text: str) -> str:
    """The text without URL queries, user names and passwords in URLs, or authorization headers."""
    text = _QUERY.sub(r"\1?…", text)
    text = _USERINFO.sub(r"\1…@", text)
    return _CREDENTIALS.sub(r"\1 …", text)
