"""The log's one format, and what never gets into it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from clapboard.logs import JsonLines, describe, redact


def line(message: str, *args: Any, **extra: Any) -> dict[str, Any]:
    """The line of a message, read back."""
    logger = logging.getLogger("clapboard.test")
    record = logger.makeRecord("clapboard.test", logging.INFO, "file.py", 1, message, args, None, extra=extra)
    text = JsonLines().format(record)
    assert "\n" not in text
    return dict(json.loads(text))


def failed() -> ValueError:
    try:
        raise ValueError("token=t0ken")
    except ValueError as error:
        return error


def test_a_line_is_one_json_object_with_its_subjects() -> None:
    found = line("job %d done", 7, project=3, task=11, model_version="v1", colour="red")
    assert found.pop("at").endswith("Z")
    assert found == {
        "level": "INFO",
        "logger": "clapboard.test",
        "message": "job 7 done",
        "project": 3,
        "task": 11,
        "model_version": "v1",
    }


def test_line_breaks_and_other_scripts_stay_on_one_line() -> None:
    assert line("two\nlines ☃")["message"] == "two\nlines ☃"


def test_an_exception_is_told_by_its_kind_and_place_without_its_words() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "it broke", None, None)
    error = failed()
    record.exc_info = (type(error), error, error.__traceback__)
    text = JsonLines().format(record)
    assert json.loads(text)["exception"].startswith("ValueError at test_logs.py:")
    assert "t0ken" not in text
    assert "Traceback" not in text


def test_an_exception_that_was_never_raised_is_told_by_its_kind() -> None:
    assert describe(KeyError("t0ken")) == "KeyError"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://s3.example/a.wav?X-Amz-Signature=t0ken&x=1 failed", "GET https://s3.example/a.wav?… failed"),
        ('{"url": "http://h/a?sig=t0ken"}', '{"url": "http://h/a?…"}'),
        ("redis://:t0ken@host:6379/0", "redis://…@host:6379/0"),
        ("postgresql+psycopg://me:t0ken@host/db?password=t0ken", "postgresql+psycopg://…@host/db?…"),
        ("postgresql://me:p@t0ken@host/db", "postgresql://…@host/db"),
        ("Authorization: Token t0ken0123456789", "Authorization: Token …"),
        ("authorization: bearer t0ken.t0ken-t0ken_", "authorization: bearer …"),
        ("Basic dDBrZW46dDBrZW4=", "Basic …"),
        ("what? http://h/a, then? b", "what? http://h/a, then? b"),
        ("no URL at all?x=1", "no URL at all?x=1"),
    ],
)
def test_secrets_are_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert "t0ken" not in redact(text)


def test_a_message_is_redacted_with_its_arguments() -> None:
    assert line("fetching %s", "https://h/a?t0ken")["message"] == "fetching https://h/a?…"


PROGRAM = """
import logging, warnings
from clapboard.logs import set_up_logging
set_up_logging("INFO")
logging.getLogger("httpx").info("GET https://h/a?t0ken")
logging.getLogger("a").debug("too fine")
logging.getLogger("a").info("said")
raise RuntimeError("t0ken")
"""


def test_a_process_logs_lines_alone_even_when_it_ends_with_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    found = [json.loads(text) for text in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [(one["level"], one["message"]) for one in found] == [("INFO", "said"), ("CRITICAL", "stopped by an error")]
    assert found[1]["exception"].startswith("RuntimeError at ")
    assert "t0ken" not in done.stderr
