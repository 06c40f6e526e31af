"""`clapboard up`, `serve` and `worker`, as real processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clapboard.queue.celery_app import INTERACTIVE, TRAIN
from clapboard.store.jobs import JobRequest, State
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import SERVING, Backend, Installation, Running
from tests.support.programs import free_port
from tests.support.waiting import wait_for

LEASE_S = 2.0


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody waited for counts."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@dataclass(frozen=True)
class Started:
    """Processes that need seconds to load torch, and so do it at the same time."""

    up_house: Installation
    up: Backend
    hopeless: Running
    house: Installation
    trainer: Running


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, tiny_clap: Path) -> Iterator[Started]:
    up_folder, folder = tmp_path_factory.mktemp("up"), tmp_path_factory.mktemp("worker")
    with (
        Installation(up_folder, tiny_clap, as_typed=True, allow_private_urls=True, job_lease_s=LEASE_S) as up_house,
        Installation(folder, tiny_clap, job_lease_s=LEASE_S) as house,
    ):
        trainer = house.start("worker", "--queues", "train")
        hopeless = house.start("up", model="/nowhere/clap", port=free_port())
        yield Started(up_house, up_house.serve("up"), hopeless, house, trainer)


@pytest.fixture
def up_house(started: Started) -> Installation:
    return started.up_house


@pytest.fixture
def up(started: Started) -> Backend:
    """`clapboard up`, once its worker is there."""
    wait_for(lambda: started.up.setup(CHOICES).status_code == 200, "no worker comes up")
    return started.up


@pytest.fixture
def house(started: Started) -> Installation:
    return started.house


@pytest.fixture
def trainer(started: Started) -> Running:
    """A worker for the train queue alone."""
    started.trainer.wait_for_log(SERVING)
    return started.trainer


class TestUp:
    def test_it_is_a_backend_and_a_worker_without_any_other_server(self, up: Backend, up_house: Installation) -> None:
        with AudioServer() as audio:
            (entry,) = up.results(CHOICES, [audio.task(1)])
        assert entry["result"][0]["value"]["choices"][0] in {"dog", "rain"}
        assert up_house.run("worker", "--ping").returncode == 0
        found = json.loads(up_house.run("worker", "--ping", "--json").stdout)
        assert len(found["workers"]) == 1

    def test_a_worker_that_is_killed_is_started_again(self, up: Backend) -> None:
        (first,) = up.process.children()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: up.process.children() not in ([], [first]), "no other worker is started")
        (second,) = up.process.children()
        wait_for(lambda: up.process.log.count(SERVING) == 2, "the other worker doesn't serve")
        with AudioServer() as audio:
            assert up.results(CHOICES, [audio.task(2)]) != [[]]
        assert not is_gone(second)

    def test_when_it_is_killed_its_worker_stops_by_itself(self, up: Backend, up_house: Installation) -> None:
        (worker,) = up.process.children()
        up.process.kill()
        wait_for(lambda: is_gone(worker), "the worker goes on alone")
        done = up_house.run("worker", "--ping")
        assert done.returncode == 3
        assert "No worker of this machine is alive" in done.stderr

    def test_told_to_stop_it_takes_its_worker_along(self, up_house: Installation) -> None:
        backend = up_house.serve("up")
        (worker,) = wait_for(backend.process.children, "no worker is started")
        assert backend.process.stop() == 0
        assert is_gone(worker)

    def test_with_a_model_that_cannot_be_had_it_gives_up_and_says_why(self, started: Started) -> None:
        assert started.hopeless.wait() == 3
        assert "/nowhere/clap doesn't exist" in started.hopeless.log
        assert "Traceback" not in started.hopeless.log


class TestOnATerminal:
    """What people see who type the command, on a pseudo-terminal."""

    def test_up_tells_the_address_and_the_next_step_and_ctrl_c_ends_it_in_a_line(
        self, tmp_path: Path, tiny_clap: Path
    ) -> None:
        port = free_port()
        with Installation(tmp_path, tiny_clap, as_typed=True, label_studio_api_key="t0ken-of-a-person") as house:
            terminal = house.on_a_terminal("up", port=port)
            terminal.wait_for("A worker is ready. Next, in another terminal: clapboard connect --project 1")
            terminal.press_ctrl_c()
            assert terminal.wait() == 130
        told = terminal.text
        assert told.startswith(f"> Clapboard is at http://localhost:{port}, its API described at ")
        assert f"A worker is loading {tiny_clap}" in told
        assert "serving interactive, search, learn, batch, train" in told
        assert '{"at"' not in told
        assert "Traceback" not in told
        assert told.split("^C")[1].split() == ["Stopped."]

    def test_ctrl_c_ends_worker_and_serve_in_a_line_and_130_and_sigterm_in_0(self, tmp_path: Path) -> None:
        with Installation(tmp_path, "mini") as house:
            worker = house.on_a_terminal("worker")
            serve = house.on_a_terminal("serve", port=free_port())
            told_to_stop = house.start("worker")
            for terminal, ready in ((worker, "serving interactive"), (serve, "Clapboard is at ")):
                terminal.wait_for(ready)
                terminal.press_ctrl_c()
                assert terminal.wait() == 130
                assert terminal.text.split("^C")[1].split() == ["Stopped."]
            told_to_stop.wait_for_log(SERVING)
            assert told_to_stop.stop() == 0

    def test_logs_are_json_there_too_where_that_is_asked_for(self, tmp_path: Path) -> None:
        with Installation(tmp_path, "/nowhere/clap") as house:
            terminal = house.on_a_terminal("up", "--json", port=free_port())
            assert terminal.wait() == 3
        told = [json.loads(line) for line in terminal.text.splitlines() if line]
        assert {line["level"] for line in told if "at" in line} == {"INFO"}
        (error,) = (line for line in told if "at" not in line)
        assert error["error"] == "model"
        assert "/nowhere/clap doesn't exist" in error["detail"]


class TestServe:
    def test_a_port_that_is_taken_is_an_error_and_no_traceback(self, tmp_path: Path) -> None:
        with Installation(tmp_path, "mini", as_typed=True) as house:
            port = house.serve().client.base_url.port
            process = house.start("serve", port=port)
            assert process.wait() == 2
            assert "address already in use" in process.log
            assert "Traceback" not in process.log

    def test_told_to_stop_it_ends_in_good_order(self, tmp_path: Path) -> None:
        with Installation(tmp_path, "mini", as_typed=True) as house:
            backend = house.serve()
            assert backend.process.stop() == 0
            assert "Traceback" not in backend.process.log


class TestWorker:
    def test_it_serves_the_queues_that_it_was_given_and_no_other(self, house: Installation, trainer: Running) -> None:
        (other,) = house.store.jobs.add(INTERACTIVE, [JobRequest("train", 1)])
        (ours,) = house.store.jobs.add(TRAIN, [JobRequest("train", 2)])
        # Of a project that nobody knows, so that it comes to its end at once.
        wait_for(lambda: house.store.jobs.get(ours).state == State.FAILED, "the train job isn't tried")
        time.sleep(1.5)  # long enough to look at all queues
        assert house.store.jobs.get(other).state == State.QUEUED
        (alive,) = house.store.catalog.workers(LEASE_S)
        assert alive.queues == "train"

    def test_ping_says_whether_one_is_alive(self, house: Installation, trainer: Running) -> None:
        done = house.run("worker", "--ping")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        trainer.kill()
        wait_for(lambda: house.run("worker", "--ping").returncode == 3, "ping doesn't notice")
        assert json.loads(house.run("worker", "--ping", "--json").stdout) == {"workers": []}

    def test_one_that_can_push_nothing_says_so(self, trainer: Running) -> None:
        assert "LABEL_STUDIO_API_KEY is not set" in trainer.log
