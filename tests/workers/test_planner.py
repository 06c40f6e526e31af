"""What comes by the clock: by real workers on both brokers, and by planners on a clock that stands still."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from clapboard.queue.celery_app import BATCH, LEARN, QUEUES, TRAIN
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest, State
from clapboard.store.plans import Plan
from clapboard.store.schema import plans
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.processes import SERVING, Installation
from tests.support.waiting import wait_for
from tests.workers.conftest import World
from tests.workers.learning import Clock, Waker
from workers.planner import PLANNED, Planner

PROJECT, OTHER, UNCONNECTED = 7, 8, 9
NIGHTLY = "0 3 * * *"


# Real workers


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path, tiny_clap: Path) -> Iterator[Installation]:
    """A project that is connected, and a Label Studio for it."""
    settings: dict[str, Any] = {"sync_s": 1, "train_schedule": NIGHTLY, "label_studio_api_key": TOKEN, "job_lease_s": 1}
    if request.param == "redis":
        settings["broker_url"] = request.getfixturevalue("redis_url")
    with (
        FakeLabelStudio() as label_studio,
        Installation(tmp_path, tiny_clap, label_studio_url=label_studio.url, **settings) as installation,
    ):
        label_studio.tasks[PROJECT] = {}
        installation.store.catalog.put_project(PROJECT, CHOICES, "v1")
        installation.store.catalog.set_connected(PROJECT)
        yield installation


@pytest.mark.parametrize("house", ["redis"], indirect=True)
def test_on_redis_a_worker_does_what_is_planned(house: Installation) -> None:
    house.worker()
    wait_for(lambda: len(_ended(house, "sync")) >= 2, "events that were lost aren't looked for")
    assert {job.state for job in _ended(house, "sync")} == {State.DONE}
    _becomes_due(house.store, "train", in_s=0)
    wait_for(lambda: _ended(house, "train"), "no finetuning was planned")


@pytest.mark.parametrize("house", ["folder"], indirect=True)
def test_two_workers_do_what_is_planned_once_and_make_up_for_what_was_missed_once(house: Installation) -> None:
    workers = [house.start("worker") for _ in range(2)]
    for worker in workers:
        worker.wait_for_log(SERVING)
    began_at = house.store.clock()
    syncs = wait_for(lambda: _ended(house, "sync", began_at)[2:], "events that were lost aren't looked for")
    assert {job.state for job in syncs} == {State.DONE}
    syncs = _ended(house, "sync", began_at)
    assert min(later.created_at - job.created_at for job, later in itertools.pairwise(syncs)) >= 0.99
    assert _ended(house, "train") == []  # not yet

    _becomes_due(house.store, "train", in_s=0)
    (job,) = wait_for(lambda: _ended(house, "train"), "no finetuning was planned")
    assert (job.state, job.error) == (State.DONE, "There are no labels to learn from yet.")
    told = house.run("doctor").stdout
    assert re.search(r"ok +lost events +last ran \d+ s ago \(.+\), runs next in \d s", told)
    assert re.search(r"ok +planned finetuning +last ran \d+ s ago \(.+\), runs next in \d+ .+ 03:00:00\)", told)

    for worker in workers:
        worker.stop()
    _becomes_due(house.store, "train", in_s=-3600)  # while nobody was there
    told = house.run("doctor").stdout
    assert re.search(r"NO +planned finetuning +It has been overdue since ", told)
    house.worker()
    wait_for(lambda: len(_ended(house, "train")) == 2, "what was missed isn't made up for")
    assert house.store.plans.all()["train"].next_at == _next_at_3(house.store.clock())


def _ended(house: Installation, kind: str, since: float = 0.0) -> list[Job]:
    """Jobs of the kind that were asked for since then and have ended, the oldest first."""
    found = [job for job in house.store.jobs.newest(limit=1000) if job.kind == kind and job.finished_at]
    return [job for job in reversed(found) if job.created_at > since]


def _becomes_due(store: Store, name: str, *, in_s: float) -> None:
    with store.database.write() as connection:
        connection.execute(update(plans).where(plans.c.name == name).values(next_at=store.clock() + in_s))


def _next_at_3(now: float) -> float:
    local = datetime.fromtimestamp(now)
    at_3 = local.replace(hour=3, minute=0, second=0, microsecond=0)
    return at_3.timestamp() + (86_400 if at_3 <= local else 0)


# Moment by moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(world: World, clock: Clock) -> Iterator[Store]:
    store = Store(world.settings.database, clock=clock)
    for project in (PROJECT, OTHER, UNCONNECTED):
        store.catalog.put_project(project, CHOICES, "v1")
    for project in (PROJECT, OTHER):
        store.catalog.set_connected(project)
    yield store
    store.close()


def planner(world: World, store: Store, *, has_token: bool = True, queues: Any = QUEUES, **settings: Any) -> Planner:
    return Planner(world.settings.with_overrides(**settings), store, Waker(), queues, has_token=has_token)


def asked(store: Store) -> list[tuple[str, str, int]]:
    """What was asked for since the last look, which is then done."""
    found = []
    for queue in QUEUES:
        while jobs := store.jobs.claim("worker", queue, 10):
            for job in jobs:
                found.append((job.kind, job.queue, job.project))
                store.jobs.done(job)
    return sorted(found)


SYNCS = [("sync", LEARN, PROJECT), ("sync", LEARN, OTHER)]
TRAINS = [("train", TRAIN, PROJECT), ("train", TRAIN, OTHER)]


def test_a_worker_that_starts_looks_for_lost_events_and_then_does_so_every_so_often(
    world: World, store: Store, clock: Clock
) -> None:
    one = planner(world, store, sync_s=90)
    one.start()
    assert asked(store) == SYNCS
    for step_s, expected in ((89, []), (1, SYNCS), (89, []), (500, SYNCS), (1, [])):
        clock.now += step_s
        one.look()
        assert asked(store) == expected


def test_with_zero_seconds_it_looks_at_start_only(world: World, store: Store, clock: Clock) -> None:
    one = planner(world, store, sync_s=0)
    one.start()
    assert asked(store) == SYNCS
    assert store.plans.all()["sync"].next_at == math.inf
    clock.now += 1e6
    one.look()
    assert asked(store) == []
    planner(world, store, sync_s=0).start()
    assert asked(store) == SYNCS


def test_of_several_workers_one_carries_out_each_run(world: World, store: Store, clock: Clock) -> None:
    workers = [planner(world, store, train_schedule=NIGHTLY, has_token=False) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert asked(store) == []
    clock.now = _next_at_3(clock.now)
    for worker in workers:
        worker.look()
        assert asked(store) == (TRAINS if worker is workers[0] else [])
    (plan,) = store.plans.all().values()
    assert (plan.last_at, plan.next_at) == (clock.now, _next_at_3(clock.now))


def test_two_that_look_at_the_same_moment_have_one_run_between_them(world: World, store: Store) -> None:
    plan = Plan("train", NIGHTLY, store.clock())
    store.plans.settle(plan)
    request = [JobRequest("train", PROJECT)]
    assert [store.carry_out(plan, plan.next_at + 1, TRAIN, request) for _ in range(2)] == [True, False]


def test_runs_that_were_missed_are_made_up_for_by_one(world: World, store: Store, clock: Clock) -> None:
    planner(world, store, train_schedule=NIGHTLY, has_token=False).start()
    clock.now += 5 * 86_400
    planner(world, store, train_schedule=NIGHTLY, has_token=False).start()
    assert asked(store) == TRAINS
    assert store.plans.all()["train"].next_at == _next_at_3(clock.now)


def test_a_new_schedule_begins_anew_and_one_that_is_switched_off_is_forgotten(
    world: World, store: Store, clock: Clock
) -> None:
    planner(world, store, train_schedule=NIGHTLY, has_token=False).start()
    clock.now += 5 * 86_400
    planner(world, store, train_schedule="0 4 * * *", has_token=False).start()
    assert asked(store) == []
    planner(world, store, has_token=False).start()
    assert store.plans.all() == {}
    clock.now += 5 * 86_400
    planner(world, store, train_schedule=NIGHTLY, has_token=False).start()
    assert asked(store) == []


def test_a_worker_without_the_setting_leaves_the_others_theirs(world: World, store: Store, clock: Clock) -> None:
    one = planner(world, store, train_schedule=NIGHTLY, has_token=False)
    one.start()
    planner(world, store, has_token=False).start()
    one.look()
    clock.now = _next_at_3(clock.now)
    one.look()
    assert asked(store) == TRAINS


@pytest.mark.parametrize(
    ("has_token", "queues", "names"),
    [
        (True, QUEUES, ["sync", "train"]),
        (False, QUEUES, ["train"]),  # nothing can be read in Label Studio
        (True, [TRAIN], ["train"]),  # what nobody here serves is for another worker to ask for
        (True, [LEARN], ["sync"]),
        (True, [BATCH], []),
    ],
)
def test_a_worker_plans_only_for_its_queues_and_with_a_token(
    world: World, store: Store, has_token: bool, queues: list[str], names: list[str]
) -> None:
    planner(world, store, train_schedule=NIGHTLY, has_token=has_token, queues=queues).start()
    assert sorted(store.plans.all()) == names


def test_a_job_that_is_open_already_is_left_as_it_is(world: World, store: Store, clock: Clock) -> None:
    one = planner(world, store, train_schedule=NIGHTLY, has_token=False)
    one.start()
    store.jobs.add(TRAIN, [JobRequest("train", PROJECT, delay_s=0.0)])
    clock.now = _next_at_3(clock.now)
    one.look()
    jobs = store.jobs.newest()
    assert {job.project: dict(job.payload) for job in jobs} == {PROJECT: {}, OTHER: PLANNED}
