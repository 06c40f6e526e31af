"""ClapboardModel in label-studio-ml's server, under gunicorn as its Dockerfile starts it, with two processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.webhook import ACTIONS
from clapboard.labels.label_config import parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.predictions import StoredPrediction
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT
from tests.support.labelled_project import add_labels
from tests.support.processes import Running
from tests.support.programs import REPOSITORY, free_port
from tests.support.waiting import wait_for

LABEL_STUDIO_ML = Path(os.environ.get("LABEL_STUDIO_ML", REPOSITORY / "tests/support/label_studio_ml_2")).resolve()
PAGE = (REPOSITORY / "docs/label-studio-ml.md").read_text("utf-8")
GUNICORN = json.loads(re.findall(r"^CMD (.*)$", PAGE, re.MULTILINE)[-1])
"""What the documentation's Dockerfile starts."""
WSGI = """
from label_studio_ml.api import init_app
from model import ClapboardModel
app = init_app(model_class=ClapboardModel)
"""
ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
TUNED = Encoder("models/clapboard-1", "fedcba9876543210", "float32", 2, 10.0)
PASSWORD = ("label-studio", "s3cret")


def config(*labels: str) -> str:
    choices = "".join(f'<Choice value="{label}"/>' for label in labels)
    return f'<View><Audio name="a" value="$audio"/><Choices name="c" toName="a">{choices}</Choices></View>'


def version_of(label_config: str, encoder: Encoder = ENCODER) -> str:
    return prediction.model_version(encoder, parse_label_config(label_config))


def name_of(label_config: str, encoder: Encoder = ENCODER) -> str:
    """The version's name in Label Studio."""
    return prediction.shown_name(version_of(label_config, encoder))


ANIMALS, WEATHER = config("dog", "cat"), config("rain", "wind")


@dataclass(frozen=True)
class ModuleCommand:
    """`python -m …`, for `Running` to start."""

    words: list[str]
    env: dict[str, str]
    folder: Path

    def start(self, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        command, streams = [sys.executable, "-m", *self.words], {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen(command, cwd=self.folder, env=self.env, start_new_session=True, **streams)


@dataclass(frozen=True)
class Server:
    """label-studio-ml's server with Clapboard's model, and the store that it shares with this test."""

    process: Running
    client: httpx.Client
    settings: Settings
    store: Store

    def setup(self, label_config: str, project: str = "2.1795338111", **others: Any) -> httpx.Response:
        sent = {"project": project, "schema": label_config, "hostname": "http://localhost:8080", "access_token": "t"}
        return self.client.post("/setup", json=sent | {"extra_params": None} | others)

    def predict(self, label_config: str, *tasks: dict[str, Any], project: str = "2.1795338111") -> httpx.Response:
        params = {"login": None, "password": None, "context": None}
        sent = {"tasks": list(tasks), "project": project, "label_config": label_config, "params": params}
        return self.client.post("/predict", json=sent)

    def event(self, action: str, project: int, **others: Any) -> httpx.Response:
        about = {"id": project, "label_config": ANIMALS}
        return self.client.post("/webhook", json={"action": action, "project": about} | others)


@pytest.fixture(scope="module")
def server_before_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("label-studio-ml")
    (folder / "model.py").write_text("from backend.model import ClapboardModel\n")
    (folder / "_wsgi.py").write_text(WSGI)
    env = {name: value for name, value in os.environ.items() if not name.startswith("CLAPBOARD_")} | {
        "PYTHONPATH": os.pathsep.join([str(LABEL_STUDIO_ML), str(REPOSITORY)]),
        "MODEL_DIR": str(folder / "state"),
        "CLAPBOARD_MODEL": "mini",
        "CLAPBOARD_PREDICT_WAIT_S": "0",
        "BASIC_AUTH_USER": PASSWORD[0],
        "BASIC_AUTH_PASS": PASSWORD[1],
    }
    url = f"127.0.0.1:{free_port()}"
    words = [word.replace(":9090", url) for word in GUNICORN]
    log_processes = ["--access-logfile", "-", "--access-logformat", "answered by %(p)s"]
    command = ModuleCommand([*words, *log_processes], env, folder)
    process = Running(command, folder / "gunicorn.log")
    settings = Settings.model_validate({"MODEL_DIR": folder / "state", "CLAPBOARD_MODEL": "mini"})
    store = Store.open(settings)
    # Without kept connections, so that requests go to either process.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=f"http://{url}", auth=PASSWORD, timeout=60, trust_env=False, limits=limits) as client:
        process.wait_for_log("Booting worker")
        yield Server(process, client, settings, store)
    process.end()
    store.close()


@pytest.fixture(scope="module")
def server(server_before_workers: Server) -> Server:
    """The server once a worker has announced its encoder."""
    server_before_workers.store.catalog.announce_encoder(ENCODER)
    return server_before_workers


def test_before_a_worker_is_up_setup_says_so_in_one_sentence(server_before_workers: Server) -> None:
    answer = server_before_workers.setup(ANIMALS)
    assert answer.status_code == 503
    assert answer.json()["error"] == "no_worker"
    assert answer.json()["detail"].startswith("No worker has loaded the model mini yet")


def test_health_is_up(server: Server) -> None:
    assert server.client.get("/health").json() == {"status": "UP", "model_class": "ClapboardModel"}


def test_the_password_is_asked_for(server: Server) -> None:
    assert server.client.get("/health", auth=("label-studio", "wrong")).status_code == 401


@pytest.mark.parametrize("extra_params", [None, "text", {"key": "value"}])
def test_setup_answers_the_version_of_the_predictions(server: Server, extra_params: object) -> None:
    answer = server.setup(ANIMALS, extra_params=extra_params)
    assert answer.status_code == 200
    assert answer.json() == {"model_version": name_of(ANIMALS)}
    assert server.store.catalog.project(2).model_version == name_of(ANIMALS)


def test_setup_stores_label_studios_own_address(server: Server) -> None:
    server.setup(ANIMALS, hostname="https://example.org/studio")
    assert server.store.catalog.public_address(server.settings.label_studio_url) == "https://example.org/studio"


def test_a_stored_prediction_is_answered_and_a_missing_one_is_queued(server: Server) -> None:
    key = AudioSources(server.settings).key("https://host.example/dog.wav")
    result = [{"from_name": "c", "to_name": "a", "type": "choices", "value": {"choices": ["dog"]}, "score": 0.9}]
    server.store.predictions.put_all([StoredPrediction(2, 5, version_of(ANIMALS), key, 0.9, result)], push=False)
    tasks = [
        {"id": number, "data": {"audio": f"https://host.example/{name}.wav"}} for number, name in [(5, "dog"), (6, "b")]
    ]
    answer = server.predict(ANIMALS, *tasks)
    assert answer.status_code == 200
    assert answer.json() == {"results": [{"result": result, "score": 0.9, "model_version": name_of(ANIMALS)}, []]}
    assert [(job.project, job.task, job.push) for job in server.store.jobs.newest(project=2)] == [(2, 6, True)]


def test_a_request_without_a_project_is_answered(server: Server) -> None:
    key = AudioSources(server.settings).key("https://host.example/none.wav")
    server.store.predictions.put_all([StoredPrediction(0, 5, version_of(ANIMALS), key, 0.9, [])], push=False)
    task = {"id": 5, "data": {"audio": "https://host.example/none.wav"}}
    answer = server.client.post("/predict", json={"tasks": [task], "label_config": ANIMALS})
    assert [entry["score"] for entry in answer.json()["results"]] == [0.9]


def test_each_project_keeps_its_own_version(server: Server) -> None:
    assert server.setup(ANIMALS, "3.1").json()["model_version"] == name_of(ANIMALS)
    assert server.setup(WEATHER, "4.1").json()["model_version"] == name_of(WEATHER)
    assert server.setup(ANIMALS, "3.1").json()["model_version"] == name_of(ANIMALS)


def test_a_promoted_version_is_answered_by_every_process_at_once(server: Server) -> None:
    space_id = prediction.space_id(parse_label_config(ANIMALS))
    tuned = version_of(ANIMALS, TUNED)

    def versions_of_many_setups() -> set[str]:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: server.setup(ANIMALS, "5.1"), range(16)))
        return {answer.json()["model_version"] for answer in answers}

    assert versions_of_many_setups() == {name_of(ANIMALS)}
    server.store.catalog.announce_encoder(TUNED)
    server.store.versions.put(Version(5, tuned, TUNED.model, TUNED.version, ZERO_SHOT, space_id))
    server.store.versions.promote(5, tuned)
    assert versions_of_many_setups() == {name_of(ANIMALS, TUNED)}
    wait_for(lambda: len(set(re.findall(r"answered by <\d+>", server.process.log))) == 2, "one process answers all")


def test_an_unusable_label_config_is_refused_in_one_sentence(server: Server) -> None:
    for answer in (server.setup("<View/>"), server.predict("<View/>", {"id": 1, "data": {}})):
        assert answer.status_code == 422
        assert answer.json().keys() == {"error", "detail"}
        assert answer.json()["detail"].startswith("The label config has no Audio object")


def test_an_unexpected_failure_is_answered_without_a_traceback(server: Server) -> None:
    answer = server.client.post("/setup", json={})
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "internal",
        "detail": "An unexpected error, which is a bug in Clapboard: see the backend's log.",
    }
    assert "Traceback" in server.process.log


def test_every_event_reaches_the_inbox(server: Server) -> None:
    for action in sorted(ACTIONS):
        answer = server.event(action, 7, task={"id": 1}, annotation={"id": 1})
        assert answer.status_code == 201, answer.text
    assert [event.action for event in server.store.inbox.events(project=7)] == sorted(ACTIONS)


def test_start_training_queues_a_job_and_says_what_it_will_do(server: Server) -> None:
    add_labels(server.store, 8, {"dog": 8, "rain": 8})
    result = server.event("START_TRAINING", 8).json()["result"]
    (job,) = server.store.jobs.newest(project=8)
    assert (job.id, job.kind) == (result["job"], "train")
    assert f"Job {job.id} finetunes project 8 on 16 labelled tasks" in result["message"]


def test_an_event_with_an_impossible_project_is_refused_in_one_sentence(server: Server) -> None:
    answer = server.event("ANNOTATION_CREATED", -1)
    assert answer.status_code == 422
    assert answer.json()["error"] == "request"


@pytest.mark.parametrize("in_chunks", [False, True])
def test_too_large_a_body_is_refused_in_one_sentence(server: Server, in_chunks: bool) -> None:
    body = 8_000_001 * b" "
    content = iter([body]) if in_chunks else body
    answer = server.client.post("/setup", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
    assert "larger than 8000000 bytes" in answer.json()["detail"]


def test_the_servers_files_are_private_to_their_owner(server: Server) -> None:
    modes = {path.name: path.stat().st_mode & 0o077 for path in server.settings.model_dir.iterdir()}
    modes.pop("cache.db", None)  # label-studio-ml's, of which Clapboard makes no use
    assert set(modes.values()) == {0}


def test_label_studio_ml_1_is_refused_with_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "label_studio_ml").mkdir()
    (tmp_path / "label_studio_ml" / "__init__.py").write_text("")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    run = subprocess.run([sys.executable, "-c", "import backend.model"], env=env, capture_output=True, text=True)
    assert run.stderr.splitlines()[-1] == (
        "ImportError: label-studio-ml 2.x is needed, and PyPI has only 1.0.9: "
        "pip install git+https://github.com/HumanSignal/label-studio-ml-backend.git"
    )
