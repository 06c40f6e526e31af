from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from clapboard import prediction
from clapboard.labels import parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.predictions import StoredPrediction

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
START_S = 60.0


def config(*labels: str) -> str:
    choices = "".join(f'<Choice value="{label}"/>' for label in labels)
    return f'<View><Audio name="a" value="$audio"/><Choices name="c" toName="a">{choices}</Choices></View>'


def version_of(label_config: str) -> str:
    return prediction.model_version(ENCODER, parse_label_config(label_config))


ANIMALS, WEATHER = config("dog", "cat"), config("rain", "wind")


@dataclass(frozen=True)
class Server:
    """A running `label-studio-ml start`, and the store that it shares with this test."""

    client: httpx.Client
    settings: Settings
    store: Store

    def setup(self, label_config: str, project: str = "2.1795338111") -> httpx.Response:
        sent = {"project": project, "schema": label_config, "hostname": "http://localhost:8080", "access_token": "t"}
        return self.client.post("/setup", json=sent | {"extra_params": None})

    def predict(self, label_config: str, *tasks: dict[str, Any], project: str = "2.1795338111") -> httpx.Response:
        params = {"login": None, "password": None, "context": None}
        sent = {"tasks": list(tasks), "project": project, "label_config": label_config, "params": params}
        return self.client.post("/predict", json=sent)


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, initialised and started by label-studio-ml's own commands, before any worker was up."""
    folder = tmp_path_factory.mktemp("label-studio-ml")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("CLAPBOARD_")} | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "MODEL_DIR": str(folder / "state"),
        "CLAPBOARD_MODEL": "mini",
        "CLAPBOARD_PREDICT_WAIT_S": "0",
    }
    command = [
        str(BIN / "label-studio-ml"),
        "init",
        "ours",
        "--script",
        f"{ROOT / 'backend' / 'model.py'}:ClapboardModel",
    ]
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, timeout=START_S)
    settings = Settings.model_validate({"MODEL_DIR": folder / "state", "CLAPBOARD_MODEL": "mini"})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / "label-studio-ml"), "start", "ours", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            wait_until_up(client, process, folder / "log")
            store = Store.open(settings)
            yield Server(client, settings, store)
            store.close()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


@pytest.fixture(scope="module")
def server(starting: Server) -> Server:
    """The server, once a worker has announced its encoder."""
    starting.store.catalog.announce_encoder(ENCODER)
    ends_at = time.monotonic() + 10
    while starting.setup(ANIMALS).status_code == 503 and time.monotonic() < ends_at:  # it looks once a second
        time.sleep(0.1)
    return starting


def wait_until_up(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_at = time.monotonic() + START_S
    while time.monotonic() < ends_at and process.poll() is None:
        try:
            if client.get("/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"label-studio-ml did not start:\n{log.read_text()[-3000:]}")


def test_before_a_worker_is_up_setup_says_so_without_a_traceback(starting: Server) -> None:
    answer = starting.setup(ANIMALS)
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("No worker has loaded the model mini yet")
    assert "File" not in answer.text


def test_health_is_up(server: Server) -> None:
    assert server.client.get("/health").json()["status"] == "UP"


def test_setup_answers_the_version_that_the_predictions_carry(server: Server) -> None:
    answer = server.setup(ANIMALS)
    assert answer.status_code == 200
    assert answer.json() == {"model_version": version_of(ANIMALS)}
    assert server.store.catalog.project(2).model_version == version_of(ANIMALS)


def test_a_cached_prediction_is_answered_and_a_missing_one_is_queued(server: Server) -> None:
    key = AudioSources(server.settings).key("https://host.example/dog.wav")
    result = [{"from_name": "c", "to_name": "a", "type": "choices", "value": {"choices": ["dog"]}, "score": 0.9}]
    server.store.predictions.put_all([StoredPrediction(2, 5, version_of(ANIMALS), key, 0.9, result)], push=False)
    tasks = [
        {"id": number, "data": {"audio": f"https://host.example/{name}.wav"}} for number, name in [(5, "dog"), (6, "b")]
    ]
    answer = server.predict(ANIMALS, *tasks)
    assert answer.status_code == 200
    assert answer.json() == {
        "model_version": version_of(ANIMALS),
        "results": [{"result": result, "score": 0.9, "model_version": version_of(ANIMALS)}, []],
    }
    assert [(job.project, job.task, job.push) for job in server.store.jobs.newest(project=2)] == [(2, 6, True)]


def test_two_projects_between_whose_setups_the_other_predicts_keep_their_own_versions(server: Server) -> None:
    task = {"id": 7, "data": {"audio": "https://host.example/7.wav"}}
    assert server.setup(ANIMALS, "3.1").json()["model_version"] == version_of(ANIMALS)
    assert server.setup(WEATHER, "4.1").json()["model_version"] == version_of(WEATHER)
    assert server.predict(ANIMALS, task, project="3.1").json()["model_version"] == version_of(ANIMALS)
    assert server.predict(WEATHER, task, project="4.1").json()["model_version"] == version_of(WEATHER)


def test_a_label_config_that_cannot_be_used_is_one_sentence(server: Server) -> None:
    for answer in (server.setup("<View/>"), server.predict("<View/>", {"id": 1, "data": {}})):
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("The label config has no Audio object")
        assert "File" not in answer.text


def test_webhook_events_reach_the_inbox_and_start_what_they_ask_for(server: Server) -> None:
    created = server.client.post(
        "/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 8}, "task": {"id": 1}}
    )
    train = server.client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 8}})
    assert (created.status_code, train.status_code) == (201, 201)
    assert created.json()["job"] is None
    assert [event.action for event in server.store.inbox.events(project=8)] == ["ANNOTATION_CREATED", "START_TRAINING"]
    (job,) = server.store.jobs.newest(project=8)
    assert (job.id, job.kind) == (train.json()["job"], "train")


def test_label_studio_ml_writes_nothing_of_its_own_beside_our_state(server: Server) -> None:
    server.client.post("/webhook", json={"action": "ANNOTATION_UPDATED", "project": {"id": 9}})
    assert [path.name for path in server.settings.model_dir.iterdir() if path.name.isdigit()] == []
