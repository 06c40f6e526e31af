"""Commands called in this process, with settings of the test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clapboard.cli import app
from clapboard.settings import Settings, env_name

Clapboard = Callable[..., Result]


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
