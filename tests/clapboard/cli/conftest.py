"""Commands called in this process, with settings of the test's own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clapboard.cli import app, main
from clapboard.settings import Settings, env_name
from tests.support.programs import free_port

Clapboard = Callable[..., Result]
Main = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    """Commands change this process's umask; others' files are none of their business."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """`clapboard …` as typed, in an empty folder and with no other settings: its exit code, and all that it wrote."""
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(env_name(field), raising=False)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PORT", str(free_port()))

    def clapboard(*arguments: str, **settings: object) -> tuple[int, str]:
        for field, value in settings.items():
            monkeypatch.setenv(env_name(field), str(value))
        monkeypatch.setattr(sys, "argv", ["clapboard", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out + written.err

    return clapboard


@pytest.fixture
def clapboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clapboard:
    """Runs a command in an empty folder, with no setting but those given by their fields' names."""
    monkeypatch.chdir(tmp_path)
    nothing = {name: None for field in Settings.model_fields if (name := env_name(field)) in os.environ}

    def run(*arguments: str, **settings: Any) -> Result:
        chosen = {"model_dir": tmp_path / "state"} | settings
        if "model" in settings:
            chosen.setdefault("engine", "torch")  # there in a third of the time that OpenVINO takes to compile
        named = {env_name(field): str(value) for field, value in chosen.items()}
        return CliRunner().invoke(app, [*arguments], env=nothing | named)

    return run


def lines(result: Result) -> list[Any]:
    """What was written as JSON, a value a line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def document(result: Result) -> Any:
    """What was written as JSON: all of standard output is one value."""
    return json.loads(result.stdout)
