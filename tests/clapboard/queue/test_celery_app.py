"""Wake-ups on both transports: they arrive, never raise, and a worker always reads a whole message."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from clapboard.queue.celery_app import BATCH, INTERACTIVE, QUEUES, WAKE_UP, CeleryWaker, make_celery
from clapboard.settings import Settings
from tests.support.programs import free_port


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


def test_a_wake_up_reaches_its_queue_and_no_other(app: Celery) -> None:
    assert CeleryWaker(app).wake(BATCH)
    with app.connection() as connection:
        assert heard(connection, INTERACTIVE, timeout_s=0.1) == []
        assert heard(connection, BATCH) == [(WAKE_UP, [BATCH])]


def test_many_threads_can_wake_at_once_from_the_first_moment_on(app: Celery) -> None:
    waker = CeleryWaker(app)
    accepted: list[bool] = []
    threads = [threading.Thread(target=lambda: accepted.append(waker.wake(INTERACTIVE))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted == [True] * 30
    with app.connection() as connection:
        assert heard(connection, INTERACTIVE) == [(WAKE_UP, [INTERACTIVE])] * 30


def test_a_message_is_whole_before_a_worker_can_see_it(tmp_path: Path) -> None:
    """kombu's own filesystem transport hands out files that are still empty, which ends the worker."""
    waker = CeleryWaker(make_celery(settings_on(tmp_path)))
    waking = threading.Thread(target=lambda: [waker.wake(INTERACTIVE) for _ in range(300)])
    with make_celery(settings_on(tmp_path)).connection() as connection:
        channel = connection.default_channel
        waking.start()
        num_heard = 0
        while waking.is_alive() or channel._size(INTERACTIVE):
            num_heard += channel.basic_get(INTERACTIVE, no_ack=True) is not None
        waking.join()
    assert num_heard == 300


def test_two_workers_get_each_message_once(tmp_path: Path) -> None:
    waker = CeleryWaker(make_celery(settings_on(tmp_path)))
    for _ in range(200):
        waker.wake(INTERACTIVE)
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
    CeleryWaker(app).wake(INTERACTIVE)
    with app.connection() as connection:
        assert heard(connection, INTERACTIVE) == [(WAKE_UP, [INTERACTIVE])]


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    waker = CeleryWaker(make_celery(settings_on(tmp_path)))
    assert waker.wake(INTERACTIVE)
    shutil.rmtree(tmp_path / "broker")
    assert waker.wake(INTERACTIVE)


def test_where_the_folder_cannot_be_made_the_waker_says_so_and_does_not_raise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waker = CeleryWaker(make_celery(settings_on(tmp_path)))
    (tmp_path / "broker").write_text("a file, not a folder")
    assert not waker.wake(INTERACTIVE)
    assert "the broker can't be reached" in caplog.text


def test_without_redis_the_waker_says_so_soon_without_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waker = CeleryWaker(make_celery(settings_on(tmp_path, f"redis://:s3cret@127.0.0.1:{free_port()}/0")))
    began = time.monotonic()
    assert not waker.wake(INTERACTIVE)
    assert time.monotonic() - began < 3
    assert "the broker can't be reached" in caplog.text
    assert "s3cret" not in caplog.text
