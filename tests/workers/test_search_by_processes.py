"""Searching with real processes: the backend's route, through a worker on Redis, beside the command line."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.cli import app
from clapboard.settings import env_name
from clapboard.store.tasks import KnownTask
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Backend, Installation, Running
from tests.support.waiting import wait_for
from training.sounds.synthesis import synthesise

PROJECT = 7
KINDS = ("rain", "siren", "dog bark", "dog bark", "rain")  # of tasks 1 to 5
HELD_OUT = 5


def flac(kind: str, seed: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, synthesise(kind, 2_100_000_000 + seed, 5.0), SAMPLE_RATE, format="FLAC")
    return file.getvalue()


def data_uri(content: bytes) -> str:
    return f"data:audio/flac;base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("searching")
    with Installation(folder, "mini", broker_url=redis_url, job_lease_s=2, search_wait_s=8) as installation:
        yield installation


@pytest.fixture(scope="module")
def worker(house: Installation) -> Running:
    return house.worker()


@pytest.fixture(scope="module")
def backend(house: Installation, worker: Running) -> Backend:
    """One whose project is embedded."""
    house.store.catalog.put_project(PROJECT, CHOICES, "v1")
    house.store.catalog.set_connected(PROJECT)
    backend = house.serve()  # afterwards, since it remembers for a second which projects are connected
    tasks = [{"id": n, "data": {"audio": data_uri(flac(kind, n))}} for n, kind in enumerate(KINDS, 1)]
    wait_for(lambda: all(backend.results(CHOICES, tasks, f"{PROJECT}.1")), "the tasks aren't embedded")
    known = house.store.tasks.get(PROJECT, [HELD_OUT])[HELD_OUT]
    aside = KnownTask(HELD_OUT, known.uri, known.uri_key, known.source, held_out=True)
    house.store.tasks.put(PROJECT, [aside])
    return backend


@pytest.fixture(scope="module")
def bark(house: Installation) -> Path:
    path = house.folder / "bark: loud.flac"
    path.write_bytes(flac("dog bark", 99))
    return path


def ask(backend: Backend, **request: Any) -> httpx.Response:
    return backend.client.post("/search", json={"project": PROJECT} | request)


def matches(backend: Backend, **request: Any) -> list[dict[str, Any]]:
    answer = ask(backend, **request)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["matches"])


def by_command(house: Installation, *asked: str) -> list[dict[str, Any]]:
    """The command in this process, which spares it a start, on the same store and model."""
    names = ("model", "model_dir", "device", "engine")
    env = {env_name(name): str(getattr(house.settings, name)) for name in names}
    done = CliRunner().invoke(app, ["search", "--project", str(PROJECT), *asked, "--json"], env=env)
    assert done.exit_code == 0, done.exception
    return list(json.loads(done.stdout)["matches"])


def test_the_route_finds_what_the_command_finds(house: Installation, backend: Backend, bark: Path) -> None:
    loud = {"audio": data_uri(bark.read_bytes()), "start_s": 0.5, "end_s": 2}
    silent = {"task": 2, "start_s": 0, "end_s": 4}
    found = matches(backend, text="dog bark", like=[loud], not_like=[silent, {"task": 1}])
    assert {one["task"] for one in found} == {3, 4}
    same = ["--like", f"{bark}:0.5-2", "--not-like", "task:2:0-4", "--not-like", "task:1"]
    for one, other in zip(found, by_command(house, "dog bark", *same), strict=True):
        assert one | {"score": 0} == other | {"score": 0}
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_text_sound_and_task_each_find_their_kind_and_never_what_is_held_out(backend: Backend, bark: Path) -> None:
    assert {one["task"] for one in matches(backend, text="dog bark", top=2)} == {3, 4}
    assert {one["task"] for one in matches(backend, like=[{"audio": data_uri(bark.read_bytes())}], top=2)} == {3, 4}
    assert matches(backend, like=[{"task": 3}], top=1)[0]["task"] == 4
    assert matches(backend, text="rain")[0]["task"] == 1
    everything = matches(backend, text="rain", top=1000)
    assert sorted(one["task"] for one in everything) == [1, 2, 3, 4]
    assert sorted(one["task"] for one in matches(backend, like=[{"task": HELD_OUT}])) == [1, 2, 3, 4]


def test_what_the_worker_refuses_has_its_status(backend: Backend) -> None:
    for request, status in (
        ({"like": [{"task": 99}]}, 404),
        ({"like": [{"audio": "data:audio/wav,none"}]}, 422),
        ({"like": [{"audio": "http://127.0.0.1:1/a.wav"}]}, 422),
        ({"text": ""}, 422),
    ):
        answer = ask(backend, **request)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"].endswith(".")


def test_nothing_of_a_search_is_kept_or_logged(house: Installation, backend: Backend) -> None:
    matches(backend, text="a most peculiar yodel")
    with house.store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM searches").scalar() == 0
        assert connection.exec_driver_sql("SELECT count(*) FROM jobs WHERE payload LIKE '%yodel%'").scalar() == 0
    assert "yodel" not in house.logs


def test_a_worker_that_is_killed_leaves_nobody_hanging(
    house: Installation, backend: Backend, worker: Running, bark: Path
) -> None:
    """The last test: the worker is gone then."""
    worker.kill()
    answer = ask(backend, like=[{"audio": data_uri(np.random.default_rng(1).bytes(100))}])
    assert (answer.status_code, answer.json()["error"]) in ((503, "busy"), (503, "no_worker"))
    wait_for(lambda: ask(backend, text="rain").json()["error"] == "no_worker", "the worker counts as alive")
