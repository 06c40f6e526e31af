"""The bell on both transports: it rings, it never raises, and a worker always gets a whole message."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from clapboard.jobs import BATCH, INTERACTIVE, QUEUES, RING, CeleryBell, make_celery
from clapboard.settings import Settings
from tests.support.fixtures_services import free_port


def settings_on(folder: Path, broker_url: str = "") -> Settings:
    return Settings(MODEL_DIR=folder, CLAPBOARD_BROKER_URL=broker_url)


@pytest.fixture(params=["filesystem", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Celery:
    """The Celery app on an empty broker."""
    if request.param == "filesystem":
        return make_celery(settings_on(tmp_path))
    app = make_celery(settings_on(tmp_path, request.getfixturevalue("redis_url")))
    with app.connection() as connection:
        for queue in QUEUES:
            connection.default_channel.queue_purge(queue)
    return app


def heard(connection: Connection, queue: str, timeout_s: float = 2.0) -> list[Any]:
    """The names and arguments of the queue's messages."""
    messages: list[Any] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        message = connection.default_channel.basic_get(queue, no_ack=True)
        if message is None and messages:
            break
        if message is not None:
            messages.append((message.headers["task"], message.decode()[0]))
    return messages


def test_the_bell_reaches_the_queue_that_it_was_rung_for_and_no_other(app: Celery) -> None:
    assert CeleryBell(app).ring(BATCH)
    with app.connection() as connection:
        assert heard(connection, INTERACTIVE, timeout_s=0.1) == []
        assert heard(connection, BATCH) == [(RING, [BATCH])]


def test_many_threads_ring_at_once_from_the_first_moment_on(app: Celery) -> None:
    bell = CeleryBell(app)
    rang: list[bool] = []
    threads = [threading.Thread(target=lambda: rang.append(bell.ring(INTERACTIVE))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rang == [True] * 30
    with app.connection() as connection:
        assert heard(connection, INTERACTIVE) == [(RING, [INTERACTIVE])] * 30


def test_a_message_is_whole_before_a_worker_can_see_it(tmp_path: Path) -> None:
    """kombu's own filesystem transport hands out files that are still empty, which ends the worker."""
    bell = CeleryBell(make_celery(settings_on(tmp_path)))
    ringing = threading.Thread(target=lambda: [bell.ring(INTERACTIVE) for _ in range(300)])
    with make_celery(settings_on(tmp_path)).connection() as connection:
        channel = connection.default_channel
        ringing.start()
        num_heard = 0
        while ringing.is_alive() or channel._size(INTERACTIVE):
            num_heard += channel.basic_get(INTERACTIVE, no_ack=True) is not None
        ringing.join()
    assert num_heard == 300


def test_two_workers_get_each_message_once(tmp_path: Path) -> None:
    bell = CeleryBell(make_celery(settings_on(tmp_path)))
    for _ in range(200):
        bell.ring(INTERACTIVE)
    counts: list[int] = []

    def take_all() -> None:
        with make_celery(settings_on(tmp_path)).connection() as connection:
            channel, count = connection.default_channel, 0
            while channel._size(INTERACTIVE):
                count += channel.basic_get(INTERACTIVE, no_ack=True) is not None
            counts.append(count)

    threads = [threading.Thread(target=take_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 200


def test_what_is_no_message_is_passed_over(tmp_path: Path) -> None:
    app = make_celery(settings_on(tmp_path))
    for name, content in [("0-a.json", b""), ("1-b.json", b"\xff{"), ("2-c.json", b"[]"), ("3-d.txt", b"hello")]:
        folder = tmp_path / "broker" / INTERACTIVE
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    CeleryBell(app).ring(INTERACTIVE)
    with app.connection() as connection:
        assert heard(connection, INTERACTIVE) == [(RING, [INTERACTIVE])]


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    bell = CeleryBell(make_celery(settings_on(tmp_path)))
    assert bell.ring(INTERACTIVE)
    shutil.rmtree(tmp_path / "broker")
    assert bell.ring(INTERACTIVE)


def test_where_no_folder_can_be_the_bell_says_so_and_does_not_raise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bell = CeleryBell(make_celery(settings_on(tmp_path)))
    (tmp_path / "broker").write_text("a file, not a folder")
    assert not bell.ring(INTERACTIVE)
    assert "the broker can't be reached" in caplog.text


def test_without_redis_the_bell_says_so_soon_and_tells_no_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bell = CeleryBell(make_celery(settings_on(tmp_path, f"redis://:s3cret@127.0.0.1:{free_port()}/0")))
    began = time.monotonic()
    assert not bell.ring(INTERACTIVE)
    assert time.monotonic() - began < 3
    assert "the broker can't be reached" in caplog.text
    assert "s3cret" not in caplog.text
