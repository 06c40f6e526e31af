"""A real worker and backend whose PostgreSQL goes away in the middle: told in a sentence, and gone on by themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from clapboard.queue.celery_app import BATCH, CeleryWaker, make_celery
from clapboard.store.jobs import State
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.predict_jobs import queue_predictions
from tests.support.processes import Backend, Installation, Running
from tests.support.programs import needs_program
from tests.support.recordings import data_uri
from tests.support.waiting import wait_for

NUM_TASKS = 300


class Postgres:
    """A PostgreSQL that can be stopped as by a crash, and started again with what it held."""

    def __init__(self, folder: Path) -> None:
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._folder, self._data = folder, folder / "data"
        self._program = needs_program("postgresql")
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        initdb = [self._program.with_name("initdb"), "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        made = [*initdb, "--locale=C", "--no-sync"]
        subprocess.run(made, user=self._user, cwd=folder, check=True, capture_output=True)
        self.start()

    def start(self) -> None:
        options = {"listen_addresses": "", "unix_socket_directories": self._folder, "fsync": "off"}
        command = [self._program, "-D", self._data, *(f"--{name}={value}" for name, value in options.items())]
        self._process = subprocess.Popen(
            command, user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._answers, "PostgreSQL doesn't answer")

    def crash(self) -> None:
        """Every connection breaks off, and nothing is there any more."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Inside, it takes connections and says nothing to them."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            psycopg.connect(host=str(self._folder), user="postgres").close()
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="clapboard-postgres-"))
    try:
        server = Postgres(folder)
        yield server
        server.crash()
    finally:
        shutil.rmtree(folder)


def test_a_postgres_that_goes_away_twice_costs_no_job_and_does_none_twice(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("house")
    settings = {"database_url": postgres.url, "job_lease_s": 3, "predict_wait_s": 1}
    with FakeLabelStudio() as studio:
        studio.add_tasks(1, *({"id": number, "data": {"audio": "a"}} for number in range(1, NUM_TASKS + 1)))
        settings |= {"label_studio_url": studio.url, "label_studio_api_key": TOKEN}
        with Installation(folder, "mini", **settings) as house:
            worker, backend = house.worker(), house.serve()
            uris = [data_uri(number, 2.0) for number in range(1, NUM_TASKS + 1)]
            queue_predictions(house.settings, house.store, uris, push=True)
            CeleryWaker(make_celery(house.settings)).wake(BATCH)
            for _ in range(2):
                wait_for(lambda: _states(house)[State.RUNNING], "no job was begun")
                postgres.crash()
                _assert_said(house, backend)
                postgres.start()
            wait_for(lambda: _states(house) == {State.DONE: NUM_TASKS}, f"jobs are left: {_states(house)}")
            wait_for(lambda: not house.store.predictions.num_owed(1), "something isn't pushed")
            _assert_same(worker, backend)
            assert backend.setup(CHOICES).status_code == 200
            pushed = Counter(one["task"] for one in studio.stored)
            assert pushed == dict.fromkeys(range(1, NUM_TASKS + 1), 1)


def test_a_postgres_that_hangs_counts_as_away(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Installation(tmp_path_factory.mktemp("hanging"), "mini", database_url=postgres.url) as house:
        with postgres.hanging():
            _assert_told(house, "jobs")
        assert house.run("jobs").returncode == 0


def _states(house: Installation) -> Counter[State]:
    totals: Counter[State] = Counter()
    for (_, state), count in house.store.jobs.counts().items():
        totals[state] += count
    return totals


def _assert_said(house: Installation, backend: Backend) -> None:
    """What people and programs are told while the store is away."""
    answer = backend.predict(CHOICES, [{"id": 1, "data": {"audio": data_uri(1)}}])
    assert answer.status_code == 503
    assert answer.json()["error"] == "store"
    assert answer.json()["detail"].startswith("The store can't be reached at the moment")
    for command in (["jobs"], ["ledger", "--project", "1"]):
        _assert_told(house, *command)


def _assert_told(house: Installation, *command: str) -> None:
    done = house.run(*command)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert done.stderr.startswith("error: The store postgresql")
    assert done.stderr.endswith("can't be reached: check that it runs, and CLAPBOARD_DATABASE_URL.\n")
    assert done.stderr.count("\n") == 1


def _assert_same(worker: Running, backend: Backend) -> None:
    """Neither had to be started again, and their logs tell in sentences what was."""
    for process in (worker, backend.process):
        assert process.is_alive
        assert "Traceback" not in process.log
        assert "SELECT" not in process.log
    assert "can't be reached" in worker.log
