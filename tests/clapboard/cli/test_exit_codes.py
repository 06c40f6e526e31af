"""What the command line says and returns when something is wrong: one sentence, and a documented exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_label_studio import TOKEN, FakeLabelStudio
from tests.support.processes import Installation


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("house"), "mini") as installation:
        yield installation


def test_wrong_settings_and_usage_are_2(house: Installation, tmp_path: Path) -> None:
    done = house.run("jobs", "--state", "lost")
    assert done.returncode == 2
    assert done.stderr == "error: State lost doesn't exist: choose from queued, running, done, failed.\n"
    assert done.stdout == ""
    assert house.run("jobs", "--limit", "0").returncode == 2
    done = house.run("config", broker_url="redis://[/x]")
    assert done.returncode == 2
    assert "CLAPBOARD_BROKER_URL: is not a valid address: write redis://HOST:PORT/0" in done.stderr


def test_what_is_needed_and_not_there_is_3(house: Installation, tmp_path: Path) -> None:
    done = house.run("worker", "--ping")
    assert done.returncode == 3
    assert "start one with `clapboard worker`" in done.stderr
    done = house.run("evaluate", "tables", "--data", str(tmp_path), "--sets", "gtzan")
    assert done.returncode == 3
    assert "GTZAN isn't in" in done.stderr
    with FakeLabelStudio() as label_studio:
        settings = {"label_studio_url": label_studio.url, "label_studio_api_key": "t0ken"}
        done = house.run("prelabel", "--project", "1", **settings)
    assert done.returncode == 3
    assert "refuses the token in LABEL_STUDIO_API_KEY" in done.stderr
    assert "t0ken" not in done.stderr
    assert "Traceback" not in done.stderr


def test_programs_get_the_reason_as_json(house: Installation) -> None:
    with FakeLabelStudio() as label_studio:
        label_studio.tasks[1] = {}
        settings = {"label_studio_url": label_studio.url, "label_studio_api_key": TOKEN}
        done = house.run("connect", "--project", "1", "--json", **settings)
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert found["error"] == "no_worker"
    assert "start one with `clapboard worker` (or use `clapboard up`)" in found["detail"]


def test_a_message_with_brackets_is_shown_as_it_is(house: Installation) -> None:
    done = house.run("worker", "--queues", "[/red]")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Queue [/red] doesn't exist")
