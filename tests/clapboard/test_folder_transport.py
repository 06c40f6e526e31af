"""The default broker: a folder."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.simple import SimpleQueue

from clapboard.jobs import make_celery
from clapboard.settings import Settings

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


def test_queues_dont_hear_each_others_messages(settings: Settings) -> None:
    with connection(settings) as ours, ours.SimpleQueue("batch") as batch, ours.SimpleQueue("train") as train:
        batch.put({"number": 1})
        with pytest.raises(Empty):
            train.get(block=False)
        assert next_of(batch) == {"number": 1}
