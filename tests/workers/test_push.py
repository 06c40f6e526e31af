"""Pusher: owed predictions to Label Studio, as its API behaves, in good times and bad."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.label_studio.client import LabelStudioClient
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.predictions import Delivery, StoredPrediction
from tests.support.fake_label_studio import TOKEN, FakeLabelStudio
from tests.support.waiting import WAIT_S
from workers.push import RETRY_REFUSED_S, RETRY_S, Pusher

VERSION = "v1"
LEASE_S = 30.0


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A store that owes, a Label Studio to push to, and a pusher between them."""

    def __init__(
        self,
        folder: Path,
        label_studio: FakeLabelStudio,
        token: str = TOKEN,
        *,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.clock = Clock()
        self.store = Store(f"sqlite:///{folder / 'clapboard.db'}", clock=clock or self.clock)
        self.label_studio = label_studio
        settings = Settings(LABEL_STUDIO_URL=label_studio.url, LABEL_STUDIO_API_KEY=token)
        self.client = LabelStudioClient(settings, max_retries=0)
        self.pusher = Pusher(self.store, self.client, lease_s=lease_s)

    def owe(self, project: int, *tasks: int, exist: bool = True, choice: str = "dog") -> None:
        if exist:
            self.label_studio.add_tasks(project, *({"id": task, "data": {"audio": "/a.wav"}} for task in tasks))
        found = [StoredPrediction(project, task, VERSION, "key", task / 10_000, result(choice)) for task in tasks]
        self.store.predictions.put_all(found, push=False)
        self.store.predictions.owe(project, tasks, VERSION)

    def stored(self, *tasks: int) -> list[int]:
        return list(self.label_studio.count(VERSION, *tasks).values())

    def close(self) -> None:
        self.client.close()
        self.store.close()


def result(choice: str) -> list[dict[str, Any]]:
    value = {"choices": [choice]}
    return [{"id": "c", "from_name": "clip", "to_name": "audio", "type": "choices", "value": value, "score": 0.5}]


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[World]:
    world = World(tmp_path, label_studio)
    yield world
    world.close()


def test_owed_predictions_arrive_unchanged_and_are_owed_no_more(world: World) -> None:
    world.owe(1, 11, 12)
    world.owe(2, 21)
    assert world.pusher.push_owed() == 3
    assert world.store.predictions.num_owed() == 0
    by_task = {item["task"]: item for item in world.label_studio.stored}
    assert sorted(by_task) == [11, 12, 21]
    assert by_task[12] == {
        "id": by_task[12]["id"],
        "task": 12,
        "model_version": VERSION,
        "score": 0.0012,
        "result": result("dog"),
    }
    assert world.store.predictions.counts(1, VERSION) == {Delivery.PUSHED: 2}


def test_with_nothing_owed_label_studio_is_not_asked(world: World) -> None:
    world.label_studio.is_down = True
    assert world.pusher.push_owed() == 0


def test_what_label_studio_holds_already_is_not_pushed_again(world: World) -> None:
    world.owe(1, 11, 12)
    world.label_studio.store({"task": 11, "model_version": VERSION, "score": 0.5, "result": []})
    assert world.pusher.push_owed() == 2
    assert world.stored(11, 12) == [1, 1]


def test_another_versions_prediction_is_no_reason_not_to_push(world: World) -> None:
    world.owe(1, 11)
    world.label_studio.store({"task": 11, "model_version": "v0", "score": 0.5, "result": []})
    world.pusher.push_owed()
    assert world.stored(11) == [1]


def test_more_predictions_than_fit_an_import_are_all_pushed(world: World) -> None:
    tasks = range(1, 2301)
    world.owe(1, *tasks)
    assert world.pusher.push_owed() == 2300
    assert set(world.stored(*tasks)) == {1}


def test_while_label_studio_is_away_predictions_wait_a_little(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.owe(1, 11)
    world.label_studio.is_down = True
    assert world.pusher.push_owed() == 0
    assert "predictions wait" in caplog.text
    assert TOKEN not in caplog.text
    world.label_studio.is_down = False
    world.clock.now += RETRY_S - 1
    assert world.pusher.push_owed() == 0
    world.clock.now += 1
    assert world.pusher.push_owed() == 1
    assert world.stored(11) == [1]


def test_where_label_studio_refuses_the_token_predictions_wait_longer_and_are_not_lost(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = World(tmp_path, world.label_studio, token="f" * 40)
    world.owe(1, 11)
    assert wrong.pusher.push_owed() == 0
    assert "refuses the token" in caplog.text
    assert "f" * 40 not in caplog.text
    world.clock.now += RETRY_S
    assert world.pusher.push_owed() == 0
    world.clock.now += RETRY_REFUSED_S
    assert world.pusher.push_owed() == 1
    wrong.close()


def test_a_project_that_is_gone_holds_up_no_other(world: World) -> None:
    world.owe(1, 11, exist=False)
    world.owe(2, 21)
    assert world.pusher.push_owed() == 1
    assert world.stored(21) == [1]
    assert world.pusher.push_owed() == 0


def test_a_task_that_is_gone_or_a_prediction_that_does_not_fit_is_given_up_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.owe(1, 11, 13)
    world.owe(1, 12, exist=False)
    world.owe(1, 14, choice="a label that was removed")
    assert world.pusher.push_owed() == 2
    assert world.stored(11, 12, 13, 14) == [1, 0, 1, 0]
    assert world.store.predictions.num_owed() == 0
    assert world.store.predictions.counts(1, VERSION) == {Delivery.PUSHED: 2, Delivery.READY: 2}
    assert "the task doesn't exist" in caplog.text


def test_what_a_dead_worker_left_in_the_middle_is_taken_over_and_asked_about_first(world: World) -> None:
    world.owe(1, 11, 12)
    taken = world.store.predictions.take_for_push(10, LEASE_S)
    world.label_studio.store({"task": 11} | taken[0].as_json())  # then it died
    world.clock.now += LEASE_S
    assert world.pusher.push_owed() == 0  # it may still live
    world.clock.now += 10 * LEASE_S
    assert world.pusher.push_owed() == 2
    assert world.stored(11, 12) == [1, 1]


@pytest.mark.parametrize("is_import", [True, False], ids=["imports of a rollout", "one by one"])
def test_a_request_that_takes_longer_than_the_lease_makes_no_second_prediction(
    tmp_path: Path, label_studio: FakeLabelStudio, is_import: bool
) -> None:
    """Two workers on one store; a page of a rollout holds several imports."""
    slow, other = (World(tmp_path, label_studio, lease_s=0.4, clock=time.time) for _ in range(2))
    tasks = range(1, 1002 if is_import else 3)
    if not is_import:  # as it is done where a project has many tasks
        label_studio.add_tasks(1, *({"id": 10_000 + number, "data": {}} for number in range(3000)))
    slow.owe(1, *tasks)
    if is_import:
        slow.store.predictions.forget_names(1, [VERSION])
        found = [StoredPrediction(1, task, VERSION, "key", 0.5, result("dog")) for task in tasks]
        taken = slow.store.predictions.put_for_push(found)
    else:
        taken = slow.store.predictions.take_for_push(len(tasks), 60.0)
    label_studio.store_delay_s = 2.0  # the lease of a push is four of a job
    pushing = threading.Thread(target=slow.pusher.push, args=[taken], kwargs={"known_absent": is_import})
    pushing.start()
    while pushing.is_alive():
        other.pusher.push_owed()
        time.sleep(0.02)
    pushing.join()
    deadline = time.monotonic() + WAIT_S  # what a slow machine let go of, the other takes up
    while slow.store.predictions.counts(1, VERSION) != {Delivery.PUSHED: len(tasks)} and time.monotonic() < deadline:
        other.pusher.push_owed()
        time.sleep(0.02)
    assert set(label_studio.count(VERSION, *tasks).values()) == {1}
    assert slow.store.predictions.counts(1, VERSION) == {Delivery.PUSHED: len(tasks)}
    for world in (slow, other):
        world.close()


def test_what_was_imported_is_pushed_before_the_next_import_begins(world: World) -> None:
    tasks = range(1, 2101)
    world.owe(1, *tasks)
    counts = []
    world.label_studio.on_stored = lambda: counts.append(
        world.store.predictions.counts(1, VERSION).get(Delivery.PUSHED, 0)
    )
    world.pusher.push(world.store.predictions.take_for_push(3000, LEASE_S))
    assert counts == [0, 1000, 2000]


def test_a_worker_that_stood_still_leaves_the_rest_to_whoever_took_it_over(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = range(1, 1501)
    world.owe(1, *tasks)
    taken = world.store.predictions.take_for_push(3000, LEASE_S)

    def stand_still() -> None:
        world.clock.now += 10 * LEASE_S

    world.label_studio.on_stored = stand_still
    assert world.pusher.push(taken, known_absent=True) == 1000
    assert "left to others" in caplog.text
    world.label_studio.on_stored = lambda: None
    assert world.pusher.push_owed() == 500
    assert set(world.stored(*tasks)) == {1}
