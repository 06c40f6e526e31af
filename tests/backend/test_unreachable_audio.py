"""No request waits for audio that can't be fetched: real processes, and files that are missing, slow or unreachable."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.store.jobs import State
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.processes import Backend, Installation, Running
from tests.support.programs import free_port
from tests.support.waiting import wait_for

WAIT_S = 3.0
AT_ONCE_S = 1.0  # far below the wait, and far above what it takes on a machine that does other things too
PROJECT = 1


class Site:
    """A backend that waits 3 s, and a worker."""

    def __init__(self, installation: Installation, audio: AudioServer, label_studio: FakeLabelStudio) -> None:
        self.installation = installation
        self.audio = audio
        self.label_studio = label_studio
        self.worker: Running = installation.worker()
        self.backend: Backend = installation.serve(predict_wait_s=WAIT_S)
        wait_for(lambda: self.backend.setup(CHOICES, "").status_code == 200, "the backend sees no worker")
        self.version = str(self.backend.setup(CHOICES, "").json()["model_version"])
        self._numbers = itertools.count(1)

    def task(self, address: str | None = None) -> dict[str, Any]:
        """A new task, by default with a clip of its own."""
        number = next(self._numbers)
        task = self.audio.task(number) if address is None else {"id": number, "data": {"audio": address}}
        self.label_studio.add_tasks(PROJECT, task)
        return task

    def open(self, *tasks: dict[str, Any]) -> tuple[list[Any], float]:
        """The answer when the task is opened, and how long it takes."""
        began = time.monotonic()
        found = self.backend.results(CHOICES, tasks, f"{PROJECT}.1795338111")
        return found, time.monotonic() - began

    def jobs(self, task: dict[str, Any]) -> list[Any]:
        """The task's jobs, newest first."""
        return [
            job for job in self.installation.store.jobs.newest(project=PROJECT, limit=1000) if job.task == task["id"]
        ]

    def pushed(self, task: dict[str, Any]) -> int:
        """How many suggestions the task has in Label Studio."""
        return self.label_studio.count(self.version, task["id"])[task["id"]]

    def failures_are_old(self) -> None:
        """Make every stored failure an hour older."""
        with self.installation.store.database.write() as connection:
            connection.exec_driver_sql("UPDATE audio_failures SET failed_at = failed_at - 3600")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_clap: Path) -> Iterator[Site]:
    settings = {"allow_private_urls": True, "job_lease_s": 2, "job_attempts": 2, "label_studio_api_key": TOKEN}
    with (
        AudioServer() as audio,
        FakeLabelStudio() as label_studio,
        Installation(
            tmp_path_factory.mktemp("site"), tiny_clap, label_studio_url=label_studio.url, **settings
        ) as installation,
    ):
        yield Site(installation, audio, label_studio)


@pytest.mark.parametrize("what", ["a deleted upload", "a missing file", "an unknown host", "a closed port", "no audio"])
def test_only_the_first_try_is_waited_for(site: Site, what: str) -> None:
    away = f"{next(site._numbers)}/away.wav"
    site.audio.away.add(away)
    task = site.task(
        {
            "a deleted upload": site.audio.url(away),
            "a missing file": site.audio.url("missing/a.wav"),
            "an unknown host": "http://no-such-host.invalid/a.wav",
            "a closed port": f"http://127.0.0.1:{free_port()}/a.wav",
            "no audio": site.audio.url("corrupt/a.wav"),
        }[what]
    )
    found, first_s = site.open(task)
    assert found == [[]]
    assert first_s < WAIT_S
    for _ in range(3):
        found, spent_s = site.open(task)
        assert found == [[]]
        assert spent_s < AT_ONCE_S
    assert len(site.jobs(task)) == 1


def test_other_tasks_on_an_unreachable_host_are_not_waited_for(site: Site) -> None:
    host = f"http://127.0.0.1:{free_port()}"
    site.open(site.task(f"{host}/1.wav"))
    for number in (2, 3):
        task = site.task(f"{host}/{number}.wav")
        found, spent_s = site.open(task)
        assert (found, spent_s < AT_ONCE_S) == ([[]], True)
        assert [job.push for job in site.jobs(task)] == [True]


def test_slow_audio_is_waited_for_up_to_the_limit_and_then_pushed(site: Site) -> None:
    task = site.task()
    with site.audio.holding(f"{task['id']}/clip.wav"):
        found, spent_s = site.open(task)
        assert found == [[]]
        assert WAIT_S <= spent_s < WAIT_S + AT_ONCE_S
    wait_for(lambda: site.pushed(task) == 1, "it isn't pushed")


def test_failed_audio_is_tried_again_later_without_a_wait(site: Site) -> None:
    path = f"{next(site._numbers)}/back.wav"
    site.audio.away.add(path)
    task = site.task(site.audio.url(path))
    site.open(task)
    wait_for(lambda: site.jobs(task)[0].state == State.FAILED, "it goes on trying")
    site.audio.away.remove(path)
    assert site.open(task)[0] == [[]]  # so soon, nobody tries
    assert len(site.jobs(task)) == 1
    site.failures_are_old()
    found, spent_s = site.open(task)
    assert (found, spent_s < AT_ONCE_S) == ([[]], True)
    wait_for(lambda: site.pushed(task) == 1, "it isn't tried again")
    wait_for(lambda: site.open(task)[0] != [[]], "it still counts as failed")


def test_failed_audio_is_tried_at_once_if_several_tasks_are_asked_for(site: Site) -> None:
    path = f"{next(site._numbers)}/back.wav"
    site.audio.away.add(path)
    tasks = [site.task(site.audio.url(path)), site.task()]
    site.open(tasks[0])
    site.audio.away.remove(path)
    found, spent_s = site.open(*tasks)  # «Retrieve Predictions»
    assert found[1] != []
    assert spent_s < WAIT_S
    wait_for(lambda: found[0] != [] or site.pushed(tasks[0]) == 1, "it isn't tried")


def test_a_locked_store_is_waited_for_five_seconds(site: Site) -> None:
    other = sqlite3.connect(site.installation.settings.database.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    answer = site.backend.predict(CHOICES, [site.task()], PROJECT)
    spent_s = time.monotonic() - began
    other.execute("ROLLBACK")
    other.close()
    assert answer.status_code == 503
    assert answer.json()["error"] == "store"
    assert spent_s < 5.0 + 2 * AT_ONCE_S


def test_without_a_worker_the_answer_is_immediate_and_the_next_worker_pushes(site: Site) -> None:
    site.worker.stop()
    task = site.task()
    found, spent_s = site.open(task)
    assert (found, spent_s < AT_ONCE_S) == ([[]], True)
    site.worker = site.installation.worker()
    wait_for(lambda: site.pushed(task) == 1, "it isn't pushed")
    assert site.open(site.task())[0] != [[]]
