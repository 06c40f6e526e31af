"""What a real backend and a real worker log at DEBUG while they handle secrets of every kind: none of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from clapboard.queue.celery_app import LEARN
from clapboard.store.jobs import OPEN, JobRequest
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.processes import Backend, Installation, Running
from tests.support.programs import free_port, needs_program
from tests.support.waiting import wait_for

PROJECT = 7
SECRETS = {
    "Label Studio's token": TOKEN,
    "the backend's password": "pa55word-of-http",
    "Redis's password": "pa55word-of-redis",
    "PostgreSQL's password": "pa55word/of@postgres",
    "the token in /setup": "t0ken-of-setup",
    "a presigned URL": "5ignature",
    "an address's credentials": "pa55word-in-address",
    "a query": "t0ken-in-query",
    "a body": "5aid-in-a-body",
}


@pytest.fixture(scope="module")
def guarded_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that asks for a password."""
    program, port, password = needs_program("redis-server"), free_port(), SECRETS["Redis's password"]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", password]
    folder = tmp_path_factory.mktemp("redis")
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as server:

        def answers() -> bool:
            try:
                with redis.Redis(port=port, password=password) as client:
                    return bool(client.ping())
            except redis.ConnectionError:
                return False

        try:
            wait_for(answers, "Redis doesn't answer")
            yield f"redis://:{password}@127.0.0.1:{port}/0"
        finally:
            server.kill()


class Site:
    """A backend and a worker that have seen all the secrets."""

    def __init__(self, house: Installation, audio: AudioServer, label_studio: FakeLabelStudio) -> None:
        self.house = house
        self.worker = house.worker(log_level="DEBUG")
        user = {"basic_auth_user": "ls", "basic_auth_pass": SECRETS["the backend's password"]}
        self.backend = house.serve(log_level="DEBUG", **user)
        wait_for(lambda: self.set_up(self.backend), "the backend sees no worker")
        tasks = [audio.task(number, path) for number, path in enumerate(PATHS, 1)]
        password = SECRETS["an address's credentials"]
        tasks.append({"id": 90, "data": {"audio": f"http://me:{password}@127.0.0.1:9/a.wav"}})
        label_studio.add_tasks(PROJECT, *tasks)
        self.backend.results(CHOICES, tasks, f"{PROJECT}.1")
        self.ask_in_all_ways(self.backend)
        house.store.catalog.put_project(PROJECT, CHOICES, "v1")
        for kind in ("sync", "learn", "align"):
            house.store.jobs.add(LEARN, [JobRequest(kind, PROJECT)])
        wait_for(lambda: not self.open_jobs(), f"jobs don't end: {self.open_jobs()}")
        label_studio.is_down = True
        (job,) = house.store.jobs.add(LEARN, [JobRequest("sync", PROJECT)])
        wait_for(lambda: house.store.jobs.get(job).error, "the job doesn't fail")
        self.worker.stop()
        self.backend.process.stop()

    def set_up(self, backend: Backend) -> bool:
        return backend.setup(CHOICES, "", access_token=SECRETS["the token in /setup"]).status_code == 200

    def ask_in_all_ways(self, backend: Backend) -> None:
        """With a query, a wrong password, a body that is none, an event with something said in it."""
        said, query = SECRETS["a body"], {"token": SECRETS["a query"]}
        client = backend.client
        client.get("/versions", params=query)
        client.get("/nowhere", params=query, auth=("ls", "pa55word-in-address"))
        client.post("/webhook", content=f'{{"token": "{said}"', params=query)
        client.post("/predict", json={"tasks": said, "token": said}, headers={"X-API-Key": SECRETS["a query"]})
        result = [{"type": "textarea", "value": {"text": [said]}}]
        about = {"id": 1, "task": 1, "project": PROJECT, "result": result}
        event = {"action": "ANNOTATION_CREATED", "annotation": about, "project": {"id": PROJECT}, "token": said}
        assert client.post("/webhook", json=event).status_code == 201

    def open_jobs(self) -> list[Any]:
        return [job for job in self.house.store.jobs.newest(limit=1000) if job.state in OPEN]


PATHS = [
    f"{path}?X-Amz-Signature={SECRETS['a presigned URL']}" for path in ("1/a.wav", "corrupt/a.wav", "missing/a.wav")
]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_clap: Path,
    guarded_redis: str,
    new_postgres_url: Callable[[], str],
) -> Iterator[Site]:
    database_url = new_postgres_url().replace("postgres@", "postgres:pa55word%2Fof%40postgres@", 1)
    assert "pa55word" in database_url
    with (
        AudioServer() as audio,
        FakeLabelStudio() as label_studio,
        Installation(
            tmp_path_factory.mktemp("house"),
            tiny_clap,
            allow_private_urls=True,
            broker_url=guarded_redis,
            database_url=database_url,
            label_studio_url=label_studio.url,
            label_studio_api_key=TOKEN,
        ) as house,
    ):
        yield Site(house, audio, label_studio)


@pytest.fixture(params=["backend", "worker"])
def process(request: pytest.FixtureRequest, site: Site) -> Running:
    return site.backend.process if request.param == "backend" else site.worker


FAREWELL = ("", "worker: Warm shutdown (MainProcess)")  # Celery's, on standard output


def lines(process: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.splitlines() if line not in FAREWELL]


@pytest.mark.parametrize("what", SECRETS)
def test_no_secret_is_logged(process: Running, what: str) -> None:
    secret = SECRETS[what]
    for form in (secret, secret.replace("/", "%2F").replace("@", "%40")):
        assert form not in process.log


def test_every_line_is_json_whoever_wrote_it(process: Running) -> None:
    found = lines(process)
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in found)
    assert {"DEBUG", "INFO"} <= {line["level"] for line in found}


def test_lines_about_a_job_name_it_with_its_project(site: Site) -> None:
    found = [line for line in lines(site.worker) if line["logger"] in ("workers.predict_jobs", "workers.project_jobs")]
    jobs = {job.id: job for job in site.house.store.jobs.newest(limit=1000)}
    assert {job.kind for job in map(jobs.get, (line["job"] for line in found)) if job} >= {"predict", "sync", "align"}
    for line in found:
        job = jobs[line["job"]]
        assert (line["project"], line.get("task", 0), line.get("model_version", "")) == (
            PROJECT,
            job.task,
            job.model_version,
        )
