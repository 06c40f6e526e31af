"""Heads on trial: what made suggestions worse is taken back by itself, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.queue.celery_app import LEARN
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.trials import Kind, State, Trial
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.learning import PROJECT, Clock, Learning

NUM_LABELS = 20
DOGS, RAINS = range(1, 45), range(101, 145)


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


def open_learning(folder: Path, label_studio: FakeLabelStudio, **options: Any) -> Learning:
    learning = Learning(folder, label_studio, CLAPBOARD_HEAD_TRIAL_LABELS=str(NUM_LABELS), **options)
    label_studio.setup = learning.answer
    return learning


@pytest.fixture
def learning(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
    learning = open_learning(tmp_path, label_studio)
    learning.introduce()
    learning.add(dict.fromkeys(DOGS, 0) | dict.fromkeys(RAINS, 1))
    yield learning
    learning.close()


def learn(learning: Learning) -> str:
    """What a worker does when something was labelled; what it says of that."""
    learning.store.jobs.add(LEARN, [JobRequest("learn", PROJECT)])
    job, *_ = learning.work_off(LEARN)
    return job.error or ""


def label(learning: Learning, numbers: range) -> str:
    """People label a dog and a rain of each number rightly; what a worker says of them together."""
    say(learning, numbers)
    return learn(learning)


def say(learning: Learning, numbers: range) -> None:
    for number in numbers:
        learning.say(number, "dog")
        learning.say(100 + number, "rain")


def spoil(learning: Learning, numbers: range) -> None:
    """Somebody accepts wrong suggestions in bulk, and a head learns from them."""
    for number in numbers:
        learning.say(number, "rain", bulk=True)
        learning.say(100 + number, "dog", bulk=True)
    learn(learning)


def trials(learning: Learning) -> list[Trial]:
    return learning.store.trials.of_project(PROJECT)


def good_head(learning: Learning) -> str:
    """A head that a trial found surely better than the labels' texts; a trial of the next one is open."""
    label(learning, range(1, 3))
    label(learning, range(3, 7))
    first = trials(learning)[0]
    assert (first.state, first.reference) == (State.PROMOTED, learning.zero_shot)
    assert first.reason.startswith(f"Surely better than {learning.zero_shot} by ")
    return learning.promoted


def spoilt(learning: Learning) -> Trial:
    """The open trial of heads that have learnt from wrong suggestions which somebody accepted in bulk."""
    good = good_head(learning)
    spoil(learning, range(12, 43))
    assert learning.promoted != good
    trial = learning.store.trials.open(PROJECT, Kind.HEAD)
    assert trial is not None
    assert trial.reference != learning.zero_shot
    shown = learning.shown(learning.promoted)
    assert (shown[44], shown[144]) == ("rain", "dog")
    return trial


def test_heads_that_make_it_surely_worse_are_rolled_back_and_learning_goes_on_with_the_next_label(
    learning: Learning,
) -> None:
    trial = spoilt(learning)
    said = label(learning, range(7, 12))
    assert said.startswith(f"{trial.reference} comes back into service. Surely worse than {trial.reference} by ")
    assert learning.promoted == learning.store.versions.pinned(PROJECT) == trial.reference
    shown = learning.shown(trial.reference)
    assert (shown[44], shown[144]) == ("dog", "rain")
    ended = trials(learning)[-1]
    assert (ended.state, ended.id) == (State.DROPPED, trial.id)
    assert "is pinned" in learn(learning)
    label(learning, range(43, 44))
    assert learning.promoted != trial.reference


def test_killed_at_any_step_of_a_roll_back_it_ends_the_same(
    tmp_path: Path, label_studio: FakeLabelStudio, learning: Learning
) -> None:
    trial = spoilt(learning)
    say(learning, range(7, 12))
    for num_steps in range(3):
        dying = open_learning(tmp_path, label_studio, clock=learning.clock, store=dies_after(num_steps))
        with pytest.raises(Killed):
            learn(dying)
        dying.close()
        learning.clock.now += 100
        learning.store.jobs.requeue_lost(30)
    learn(learning)
    (ended,) = [one for one in trials(learning) if one.id == trial.id]
    assert ended.state == State.DROPPED
    assert learning.promoted == learning.store.versions.pinned(PROJECT) == trial.reference


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


def dies_after(num_steps: int) -> Any:
    """A store that dies in the middle of a roll-back: after so many of its writes."""

    def open_store(url: str, clock: Clock) -> Store:
        store = Store(url, clock=clock)
        steps = [(store.versions, "pin"), (store.jobs, "add"), (store.trials, "end")]
        owner, name = steps[num_steps]
        write = getattr(owner, name)

        def die(*arguments: Any) -> Any:
            is_rollback = name != "add" or arguments[1][0].kind == "promote"
            if is_rollback and (name != "end" or arguments[1] is State.DROPPED):
                raise Killed
            return write(*arguments)

        setattr(owner, name, die)
        return store

    return open_store


def test_heads_that_only_get_better_stay_and_the_next_ones_are_compared_with_them(learning: Learning) -> None:
    good_head(learning)
    assert "comes back" not in label(learning, range(7, 11)) + label(learning, range(11, 20))
    assert {trial.state for trial in trials(learning)} <= {State.PROMOTED, State.OPEN, State.UNDECIDED}


def test_by_setting_heads_arent_on_trial(tmp_path: Path, label_studio: FakeLabelStudio) -> None:
    learning = Learning(tmp_path, label_studio, CLAPBOARD_HEAD_TRIAL_LABELS="0")
    label_studio.setup = learning.answer
    learning.introduce()
    learning.add({1: 0, 101: 1, 2: 0})
    label(learning, range(1, 2))
    assert learning.promoted != ""
    assert trials(learning) == []
    learning.close()
