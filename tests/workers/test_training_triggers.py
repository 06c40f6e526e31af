"""When a finetuning starts by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.queue.celery_app import TRAIN
from clapboard.store.jobs import JobRequest
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.learning import PROJECT, Learning
from workers.training_triggers import queue_due_training

QUIET_S = 60.0


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[Learning]:
    with FakeLabelStudio() as label_studio:
        learning = Learning(
            tmp_path,
            label_studio,
            CLAPBOARD_TRAIN_AFTER="6",
            CLAPBOARD_TRAIN_MIN_PER_CLASS="2",
            CLAPBOARD_TRAIN_QUIET_S=str(QUIET_S),
        )
        learning.introduce()
        yield learning
        learning.close()


def say(learning: Learning, *dogs: int, rains: tuple[int, ...] = ()) -> int | None:
    """People label the tasks; the job that is due then."""
    for task in dogs:
        learning.say(task, "dog")
    for task in rains:
        learning.say(task, "rain")
    learning.store.ledger.catch_up()
    return queue_due_training(learning.settings, learning.store, learning.queue, PROJECT)


def is_due(learning: Learning) -> bool:
    return learning.store.jobs.queues_with_work([TRAIN]) == [TRAIN]


def train(learning: Learning) -> None:
    """A worker runs the job to its end."""
    (job,) = learning.store.jobs.claim("worker", TRAIN, 1)
    learning.store.jobs.done(job)


def test_after_so_many_new_labels_it_is_queued_and_begins_when_it_has_been_quiet(learning: Learning) -> None:
    assert say(learning, 1, 2, 3, rains=(11, 12)) is None
    job = say(learning, 4)
    assert job is not None
    assert learning.waker.woken == [TRAIN]
    assert not is_due(learning)
    learning.clock.now += QUIET_S
    assert is_due(learning)
    assert learning.store.jobs.get(job).kind == "train"


def test_each_further_label_puts_it_off(learning: Learning) -> None:
    job = say(learning, 1, 2, 3, 4, rains=(11, 12))
    for task in (5, 6, 7):
        learning.clock.now += QUIET_S / 2
        assert say(learning, task) == job
    assert not is_due(learning)
    learning.clock.now += QUIET_S
    assert is_due(learning)
    say(learning, 8)  # it only waits for its turn
    assert is_due(learning)


def test_one_that_somebody_asked_for_is_not_put_off(learning: Learning) -> None:
    (asked,) = learning.store.jobs.add(TRAIN, [JobRequest("train", PROJECT, delay_s=0.0)])
    assert say(learning, 1, 2, 3, 4, rains=(11, 12)) == asked
    assert is_due(learning)


def test_the_rarest_class_needs_labels_of_its_own(learning: Learning) -> None:
    assert say(learning, *range(1, 10), rains=(11,)) is None
    assert say(learning, rains=(12,)) is not None


def test_after_a_training_so_many_new_ones_are_needed_again(learning: Learning) -> None:
    say(learning, 1, 2, 3, 4, rains=(11, 12))
    say(learning, 5, 6, 7)  # on time for it
    learning.clock.now += QUIET_S
    train(learning)
    assert say(learning, 21, 22, 23, rains=(31, 32)) is None
    assert say(learning, 1, 2, 3) is not None  # labels that were changed are new ones


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_label_studios_clock_is_not_compared_with_ours(learning: Learning, ahead_s: float) -> None:
    learning.label_studio_ahead_s = ahead_s
    assert say(learning, 1, 2, 3, 4, rains=(11, 12)) is not None
    learning.clock.now += QUIET_S
    train(learning)
    assert say(learning, 21) is None  # those before were learnt
    assert say(learning, 22, 23, 24, rains=(31, 32)) is not None


def test_a_task_counts_once_however_often_it_is_labelled(learning: Learning) -> None:
    for _ in range(5):
        assert say(learning, 1, 2, rains=(11, 12)) is None


def test_zero_is_never(learning: Learning) -> None:
    never = learning.settings.with_overrides(train_after=0)
    for task in range(1, 20):
        learning.say(task, "dog" if task % 2 else "rain")
    learning.store.ledger.catch_up()
    assert queue_due_training(never, learning.store, learning.queue, PROJECT) is None
    assert queue_due_training(learning.settings, learning.store, learning.queue, PROJECT) is not None
