"""The log's one format, and what never gets into it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clapboard.logs import MOST_CHARS, JsonLines, StandardError, about, carry, describe, redact
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest


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


def test_lines_go_to_the_standard_error_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = StandardError()
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "first", None, None)
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    handler.emit(record)
    assert replaced.getvalue() == "first\n"
    replaced.close()  # as a test runner, or a program that embeds us, leaves it behind
    handler.emit(record)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    handler.emit(record)
    assert sys.stderr.getvalue() == "first\n"
    monkeypatch.setattr(sys, "stderr", None)
    handler.emit(record)


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
        ("GET /data/a.wav?X-Amz-Credential=t0ken HTTP/1.1", "GET /data/a.wav?… HTTP/1.1"),
        ("/a.wav?t0ken", "/a.wav?…"),
        ("headers={'Authorization': 'Token t0ken0123456789'}", "headers={'Authorization': …}"),
        ("[(b'authorization', b'Bearer t0ken0123456789')]", "[(b'authorization', b'Bearer …')]"),
        ("X-API-Key: t0ken-0123", "X-API-Key: …"),
        ("Incorrect API key: t0ken.", "Incorrect API key: …"),
        ("api_key=t0ken&x=1", "api_key=…&x=1"),
        ("ModelHub(token='t0ken', timeout=3)", "ModelHub(token=…, timeout=3)"),
        ('{"password": "t0ken, too", "id": 7}', '{"password": …, "id": 7}'),
        ("{'access_token': 't0ken', 'id': 7}", "{'access_token': …, 'id': 7}"),
        ("aws_secret_access_key = t0ken", "aws_secret_access_key = …"),
        ("Set-Cookie: sessionid=t0ken; Path=/", "Set-Cookie: sessionid=…; Path=/"),
        ("refused eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbiI6InQwa2VuIn0.t0ken_x", "refused …"),
        ("what? http://h/a, then? b", "what? http://h/a, then? b"),
        ("either/or?x=1", "either/or?x=1"),
        (
            "Label Studio refuses the token in LABEL_STUDIO_API_KEY: Invalid token. Copy one.",
            "Label Studio refuses the token in LABEL_STUDIO_API_KEY: Invalid token. Copy one.",
        ),
        ("no URL at all?x=1", "no URL at all?x=1"),
    ],
)
def test_secrets_are_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert "t0ken" not in redact(text)


def test_a_message_is_redacted_with_its_arguments() -> None:
    assert line("fetching %s", "https://h/a?t0ken")["message"] == "fetching https://h/a?…"


def test_secrets_that_are_known_are_found_in_any_form() -> None:
    lines = JsonLines(["s3cret pass/word", "s3cret", "ab", ""])
    record = logging.LogRecord(
        "x", logging.ERROR, "f.py", 1, "said %r to s3cret.host, about", ("s3cret pass/word",), None
    )
    assert json.loads(lines.format(record))["message"] == "said '…' to ….host, about"


def test_the_settings_know_their_secrets(tmp_path: Path) -> None:
    settings = Settings(
        MODEL_DIR=tmp_path,
        LABEL_STUDIO_API_KEY="key",
        BASIC_AUTH_USER="user",
        BASIC_AUTH_PASS="pass",
        CLAPBOARD_DATABASE_URL="postgresql+psycopg://me:d%40ta@host/db",
        CLAPBOARD_BROKER_URL="redis://:queue@host:6379/0",
    )
    urls = {"postgresql+psycopg://me:d%40ta@host/db", "redis://:queue@host:6379/0"}
    assert settings.secrets == {"key", "pass", "d%40ta", "d@ta", "queue"} | urls
    assert Settings(MODEL_DIR=tmp_path).secrets == set()
    with pytest.raises(ValidationError, match="is not a valid address"):
        Settings(MODEL_DIR=tmp_path, CLAPBOARD_BROKER_URL="redis://[half")


def test_long_lines_are_cut_between_words() -> None:
    found = redact("a " * (MOST_CHARS // 2 - 10) + "redis://:" + "t0ken" * 100 + "@host")
    assert found == "a " * (MOST_CHARS // 2 - 10) + "…"
    assert redact("t0ken" * MOST_CHARS) == " …"


class TestSubjects:
    def said(self) -> dict[str, Any]:
        found = line("said")
        return {name: found[name] for name in ("project", "task", "job", "model_version") if name in found}

    def test_lines_inside_name_what_they_are_about_and_the_innermost_counts(self) -> None:
        with about(project=3, job=7):
            assert self.said() == {"project": 3, "job": 7}
            with about(task=11, job=8):
                assert self.said() == {"project": 3, "job": 8, "task": 11}
            assert self.said() == {"project": 3, "job": 7}
            assert line("said", project=4)["project"] == 4
        assert self.said() == {}

    def test_it_ends_with_an_error_too(self) -> None:
        with pytest.raises(ValueError, match="t0ken"), about(project=3):
            raise failed()
        assert self.said() == {}

    def test_other_threads_say_it_only_if_it_is_carried_there(self) -> None:
        with ThreadPoolExecutor(1) as pool, about(project=3):
            assert pool.submit(self.said).result() == {}
            assert pool.submit(carry(self.said)).result() == {"project": 3}
            assert pool.submit(self.said).result() == {}

    def test_a_job_says_what_it_is_about(self, tmp_path: Path) -> None:
        store = Store.open(Settings(MODEL_DIR=tmp_path))
        store.jobs.add("batch", [JobRequest("predict", 3, 11, "v1"), JobRequest("sync", 3)])
        predict, sync = store.jobs.claim("w", "batch", 2)
        store.close()
        assert predict.subject == {"project": 3, "task": 11, "job": predict.id, "model_version": "v1"}
        assert sync.subject == {"project": 3, "job": sync.id}


PROGRAM = """
import logging, threading, warnings
from clapboard.logs import set_up_logging
set_up_logging("INFO", ["unme-token"])
logging.getLogger("httpx").info("GET https://h/a?t0ken")
logging.getLogger("a").debug("too fine")
logging.getLogger("a").info("said %s", "unme-token")
warnings.warn("outdated")
def fail():
    raise RuntimeError("t0ken")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise RuntimeError("t0ken")
"""


def test_a_process_logs_lines_alone_even_when_it_ends_with_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    found = [json.loads(text) for text in done.stderr.splitlines()]
    assert done.returncode == 1
    said, warned, *stopped = found
    assert (said["level"], said["message"]) == ("INFO", "said …")
    assert (warned["level"], warned["logger"]) == ("WARNING", "py.warnings")
    assert "UserWarning: outdated" in warned["message"]
    why = ["a thread was stopped by an error", "stopped by an error"]
    assert [(one["level"], one["message"]) for one in stopped] == [("CRITICAL", text) for text in why]
    assert all(one["exception"].startswith("RuntimeError at ") for one in stopped)
    assert "t0ken" not in done.stderr
