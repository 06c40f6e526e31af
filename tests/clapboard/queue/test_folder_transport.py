"""The default broker: a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.simple import SimpleQueue

from clapboard.queue.celery_app import make_celery
from clapboard.settings import Settings
from tests.support.programs import REPOSITORY

NUM_SENDERS, NUM_EACH = 3, 300


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(MODEL_DIR=tmp_path)


def connection(settings: Settings) -> Connection:
    return make_celery(settings).connection_for_read()


def next_of(queue: SimpleQueue) -> Any:
    """The queue's next message, acknowledged; it may take a while."""
    ends_at = time.monotonic() + 20
    while True:
        try:
            message = queue.get(block=False)
        except Empty:
            assert time.monotonic() < ends_at, "no message came"
            time.sleep(0.005)
        else:
            message.ack()
            return message.payload


def test_messages_that_are_read_while_others_are_written_are_whole(settings: Settings) -> None:
    def send() -> None:
        with connection(settings) as mine, mine.SimpleQueue("interactive") as queue:
            for number in range(NUM_EACH):
                queue.put({"number": number, "padding": "x" * 5_000})

    senders = [threading.Thread(target=send) for _ in range(NUM_SENDERS)]
    for sender in senders:
        sender.start()
    received = []
    with connection(settings) as ours, ours.SimpleQueue("interactive") as queue:
        while len(received) < NUM_SENDERS * NUM_EACH:
            received.append(next_of(queue)["number"])
    assert sorted(received) == sorted(list(range(NUM_EACH)) * NUM_SENDERS)
    for sender in senders:
        sender.join()


def test_a_folder_that_was_removed_is_an_empty_queue_and_comes_back(settings: Settings) -> None:
    with connection(settings) as ours, ours.SimpleQueue("batch") as queue:
        queue.put({"number": 1})
        shutil.rmtree(settings.broker_dir)
        with pytest.raises(Empty):
            queue.get(block=False)
        queue.put({"number": 2})
        assert next_of(queue) == {"number": 2}


def test_a_message_for_which_there_is_no_room_leaves_nothing_behind_and_is_no_loss(settings: Settings) -> None:
    """In a process of its own, which may write files of no more than 100 bytes: what a full disk does, to the test."""
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from clapboard.queue.celery_app import CeleryWaker, make_celery\n"
        "from clapboard.settings import Settings\n"
        "waker = CeleryWaker(make_celery(Settings(MODEL_DIR=Path(sys.argv[1]))))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "assert not waker.wake('batch')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert waker.wake('batch')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(settings.model_dir)], check=True, cwd=REPOSITORY)
    assert [file.suffix for file in (settings.broker_dir / "batch").iterdir()] == [".json"]


def test_queues_dont_hear_each_others_messages(settings: Settings) -> None:
    with connection(settings) as ours, ours.SimpleQueue("batch") as batch, ours.SimpleQueue("train") as train:
        batch.put({"number": 1})
        with pytest.raises(Empty):
            train.get(block=False)
        assert next_of(batch) == {"number": 1}
