"""A real worker whose Redis goes away in every way: it goes on working, is the same process, and is woken again."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from clapboard.queue.celery_app import BATCH, INTERACTIVE, CeleryWaker, make_celery
from clapboard.store.jobs import State
from tests.support.metric_samples import samples, value
from tests.support.predict_jobs import queue_predictions
from tests.support.processes import Installation, Running
from tests.support.programs import free_port, needs_program
from tests.support.recordings import data_uri
from tests.support.waiting import wait_for


class Redis:
    """A Redis that can be killed, and started again, empty, on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [needs_program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen([*command, *options], cwd=self._folder, stdout=subprocess.DEVNULL)
        wait_for(self._answers, "Redis doesn't answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def set(self, name: str, content: str) -> None:
        with redis.Redis(port=self.port) as client:
            client.config_set(name, content)

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:  # also while it is still loading
            return False


class Site:
    """A worker on that Redis, and what is asked of it."""

    def __init__(self, installation: Installation, server: Redis) -> None:
        self.installation = installation
        self.server = server
        self.metrics_port = free_port()
        self.worker: Running
        self._tasks = itertools.count(1)

    def start_worker(self) -> None:
        self.worker = self.installation.worker(worker_metrics_port=self.metrics_port)

    def ask(self, num: int, queue: str = BATCH) -> None:
        """Queue predictions for so many clips, and wake the worker."""
        tasks = [next(self._tasks) for _ in range(num)]
        settings, store = self.installation.settings, self.installation.store
        uris = [data_uri(task) for task in tasks]
        queue_predictions(settings, store, uris, queue=queue, first_task=tasks[0])
        CeleryWaker(make_celery(settings)).wake(queue)

    def states(self) -> dict[State, int]:
        totals: dict[State, int] = {}
        for (_, state), count in self.installation.store.jobs.counts().items():
            totals[state] = totals.get(state, 0) + count
        return totals

    def wait_until_done(self) -> None:
        wait_for(lambda: set(self.states()) == {State.DONE} or not self.worker.is_alive, "jobs are left")
        assert self.worker.is_alive, self.worker.log
        assert set(self.states()) == {State.DONE}

    def wait_until_running(self) -> None:
        wait_for(lambda: self.states().get(State.RUNNING), "no job was begun")

    def is_connected(self) -> bool:
        answer = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False)
        return value(samples(answer.text), "clapboard_broker_connected") == 1

    def wait_until_connected(self) -> None:
        wait_for(self.is_connected, "no wake-up arrives")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_clap: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("broker_loss")
    server = Redis(folder)
    with Installation(folder / "state", tiny_clap, broker_url=server.url) as installation:
        site = Site(installation, server)
        site.start_worker()  # Redis is away at its start
        yield site
    server.kill()


@pytest.fixture(autouse=True)
def settled(site: Site) -> Iterator[None]:
    """Each test begins with Redis there, and the worker listening; all leave it the same process."""
    site.server.kill()
    site.server.start()
    site.wait_until_connected()
    yield
    assert site.worker.is_alive, site.worker.log[-5000:]


def test_a_busy_worker_outlives_a_redis_that_is_killed_again_and_again(site: Site) -> None:
    for _ in range(4):
        site.ask(40)
        site.wait_until_running()
        site.server.kill()
        site.server.start()
    site.wait_until_done()
    site.wait_until_connected()


def test_an_idle_worker_is_woken_again_once_redis_is_back(site: Site) -> None:
    for _ in range(2):
        site.server.kill()
        wait_for(lambda: not site.is_connected(), "the worker takes its dead connection for a live one")
        site.server.start()
        site.wait_until_connected()
    site.ask(1, INTERACTIVE)
    site.wait_until_done()


def test_while_redis_is_away_jobs_are_done_and_doctor_and_metrics_say_so(site: Site) -> None:
    site.server.kill()
    wait_for(lambda: not site.is_connected(), "the worker takes its dead connection for a live one")
    site.ask(5, INTERACTIVE)
    site.wait_until_done()
    told = site.installation.run("doctor", "--json")
    assert "The broker can't be reached" in told.stdout
    assert "Traceback" not in told.stdout + told.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [("maxmemory", "1"), ("requirepass", "secret")],
    ids=["out of memory", "wants a password"],
)
def test_a_redis_that_refuses_commands_counts_as_away(site: Site, name: str, content: str) -> None:
    site.server.set(name, content)
    site.ask(20)
    site.ask(2, INTERACTIVE)
    site.wait_until_done()
    told = site.installation.run("doctor", "--json")
    assert "The broker can't be reached" in told.stdout
    site.server.kill()
    site.server.start(f"--{name}", content)  # the worker has to connect to one that refuses
    site.ask(20)
    site.wait_until_done()
    assert not site.is_connected()
    if name == "maxmemory":  # for Celery no broker that is away, but the end
        site.worker.wait_for_log("no wake-ups arrive")


def test_a_worker_is_told_to_stop_while_redis_is_away(site: Site) -> None:
    site.server.kill()
    wait_for(lambda: not site.is_connected(), "the worker takes its dead connection for a live one")
    site.ask(40)
    site.wait_until_running()
    assert site.worker.stop() == 0
    assert State.RUNNING not in site.states()
    site.start_worker()
    site.wait_until_done()
