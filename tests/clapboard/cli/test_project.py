"""`clapboard prelabel` and `doctor`, with a worker in this process; `connect` is tested against a real Label Studio."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from clapboard.errors import LabelConfigError, LabelStudioError, NoWorkerError
from clapboard.queue.celery_app import BATCH, QUEUES
from clapboard.suggest.prediction import shown_name
from tests.clapboard.cli.conftest import Clapboard, document, lines
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.waiting import WAIT_S, wait_for
from tests.workers.conftest import World
from workers.process import WorkerProcess

PROJECT = 7


class Office:
    """A worker in the background, a Label Studio, and the command line between them."""

    def __init__(self, clapboard: Clapboard, world: World, label_studio: FakeLabelStudio) -> None:
        self.world = world
        self.label_studio = label_studio
        self.settings: dict[str, Any] = {
            "model": "counting",
            "model_dir": world.settings.model_dir,
            "label_studio_url": label_studio.url,
            "label_studio_api_key": TOKEN,
            "job_lease_s": 1,
        }
        self.run: Callable[..., Result] = partial(clapboard, **self.settings)
        settings = world.settings.with_overrides(label_studio_url=label_studio.url, label_studio_api_key=TOKEN)
        self._worker = WorkerProcess(settings, world.store, world.encoder, QUEUES)  # type: ignore[arg-type]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def add(self, *paths: str | None) -> None:
        """The project has a task for each path, None being a clip of its own."""
        tasks = [self.world.audio.task(number, path) for number, path in enumerate(paths, 1)]
        self.label_studio.add_tasks(PROJECT, *tasks)

    def open(self) -> None:
        """The worker begins."""
        self._worker.start()
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._worker.close()

    def _work(self) -> None:
        while not self._ended.wait(0.05):
            self._worker.threads.drain(BATCH)


@pytest.fixture
def office(clapboard: Clapboard, tmp_path: Path) -> Iterator[Office]:
    with AudioServer() as audio, FakeLabelStudio() as label_studio:
        world = World(tmp_path / "state", audio)
        office = Office(clapboard, world, label_studio)
        label_studio.tasks[PROJECT] = {}
        yield office
        office.close()
        world.store.close()


class TestPrelabel:
    def test_every_task_gets_its_prediction_and_a_second_run_finds_them_there(self, office: Office) -> None:
        office.add(None, None, None)
        office.open()
        done = office.run("prelabel", "--project", str(PROJECT), "--json")
        assert done.exit_code == 0, done.exception
        (found,) = lines(done)
        version = office.world.version
        assert found == {
            "project": PROJECT,
            "model_version": version,
            "num_tasks": 3,
            "num_present": 0,
            "num_cached": 0,
            "num_queued": 3,
            "num_refused": 0,
            "num_complete": 0,
            "num_held_out": 0,
            "num_forgotten": 0,
            "num_set_aside": 0,
            "num_in_label_studio": 3,
            "failures": [],
            "unreadable": [],
        }
        assert office.label_studio.count(shown_name(version), 1, 2, 3) == {1: 1, 2: 1, 3: 1}
        (again,) = lines(office.run("prelabel", "-p", str(PROJECT), "--json"))
        assert (again["num_present"], again["num_queued"], again["num_in_label_studio"]) == (3, 0, 3)
        assert "3 of 3 tasks have a suggestion" in office.run("prelabel", "-p", str(PROJECT)).stdout

    def test_bad_clips_are_told_at_every_run_and_the_others_are_done(self, office: Office) -> None:
        office.add(None, "corrupt/[b]a.wav", None)
        office.label_studio.add_tasks(PROJECT, {"id": 9, "data": {"audio": "ftp://host.example/a.wav"}})
        office.open()
        for _ in range(2):
            done = office.run("prelabel", "--project", str(PROJECT), "--json")
            assert done.exit_code == 1
            (found,) = lines(done)
            assert [failure["task"] for failure in found["failures"]] == [2, 9]
            assert "decoded" in found["failures"][0]["error"]
            assert "«ftp»" in found["failures"][1]["error"]
            assert found["num_in_label_studio"] == 2
        done = office.run("prelabel", "--project", str(PROJECT))
        assert done.exit_code == 1
        assert "2 without a suggestion" in done.stdout

    def test_a_task_that_was_forgotten_gets_none_and_that_is_no_failure(self, office: Office) -> None:
        office.add(None, None)
        office.world.store.catalog.put_project(PROJECT, CHOICES, office.world.version)
        assert office.run("forget", "--project", str(PROJECT), "--task", "2", "--yes").exit_code == 0
        office.open()
        done = office.run("prelabel", "--project", str(PROJECT), "--json")
        (found,) = lines(done)
        assert (done.exit_code, found["num_in_label_studio"], found["num_forgotten"]) == (0, 1, 1)
        done = office.run("prelabel", "--project", str(PROJECT))
        assert done.exit_code == 0
        assert "1 task was forgotten by `clapboard forget`" in done.stdout

    def test_what_label_studio_refuses_is_no_success(self, office: Office) -> None:
        office.add(None, None)
        office.open()
        held = "1/clip.wav"
        with office.world.audio.holding(held):
            run = threading.Thread(target=lambda: results.append(office.run("prelabel", "-p", str(PROJECT), "--json")))
            results: list[Result] = []
            run.start()
            wait_for(lambda: office.world.audio.waiting[held], "nobody asks for the clip")
            del office.label_studio.tasks[PROJECT][1]
        run.join(WAIT_S)
        (done,) = results
        assert done.exit_code == 1
        assert lines(done)[0]["num_in_label_studio"] == 1

    def test_it_can_only_queue(self, office: Office) -> None:
        office.world.store.catalog.announce_encoder(_announced(office))
        office.add(None, None)
        done = office.run("prelabel", "--project", str(PROJECT), "--no-wait", "--json")
        assert done.exit_code == 0
        assert lines(done)[0]["num_queued"] == 2
        assert len(office.world.store.jobs.newest()) == 2

    def test_where_the_worker_is_gone_it_says_so_and_keeps_what_is_queued(self, office: Office) -> None:
        office.world.store.catalog.announce_encoder(_announced(office))
        office.add(None, None)
        done = office.run("prelabel", "--project", str(PROJECT))
        assert isinstance(done.exception, NoWorkerError)
        assert "2 tasks wait" in str(done.exception)
        assert len(office.world.store.jobs.newest()) == 2

    def test_a_project_that_cannot_be_is_told(self, office: Office) -> None:
        done = office.run("prelabel", "--project", str(PROJECT))
        assert isinstance(done.exception, NoWorkerError)
        assert isinstance(office.run("prelabel", "--project", "99").exception, LabelStudioError)
        office.label_studio.label_config = "<View/>"
        assert isinstance(office.run("prelabel", "--project", str(PROJECT)).exception, LabelConfigError)
        assert office.run("prelabel").exit_code == 2
        assert office.run("prelabel", "--project", "0").exit_code == 2


class TestDoctor:
    def test_json_is_a_list_of_checks_and_exit_code_1_says_that_one_is_not_well(self, clapboard: Clapboard) -> None:
        done = clapboard("doctor", "--json", port=1)
        found = document(done)
        assert done.exit_code == 1
        names = [check["name"] for check in found]
        assert names[:6] == ["store", "privacy", "disk", "decoding", "worker", "model"]
        assert all(set(check) == {"name", "ok", "message"} for check in found)

    def test_people_get_a_mark_a_name_and_a_sentence(self, clapboard: Clapboard) -> None:
        done = clapboard("doctor", port=1, model="[red]mini")
        assert done.exit_code == 1
        assert "ok  store " in done.stdout
        assert "NO  worker " in done.stdout
        assert "[red]mini" in done.stdout


def _announced(office: Office) -> Any:
    from clapboard.store.catalog import Encoder

    identity = office.world.encoder.identity
    return Encoder("counting", identity.version, identity.dtype, identity.dim, identity.logit_scale)


def test_json_output_is_ascii(clapboard: Clapboard) -> None:
    done = clapboard("config", "--json", model="modèle")
    assert done.stdout.isascii()
    assert any(row["value"] == "modèle" for row in json.loads(done.stdout))
