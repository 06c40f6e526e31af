"""What `doctor` says of what comes by the clock; real workers carry it out in tests/workers/test_planner.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.doctor.schedules import OVERDUE_S, check_plans
from clapboard.errors import TrainingError
from clapboard.label_studio.checks import Check
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.plans import Plan
from tests.clapboard.store.conftest import Clock
from tests.support.fake_label_studio import CHOICES, TOKEN

NIGHTLY = "0 3 * * *"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'clapboard.db'}", clock=clock)
    store.catalog.put_project(7, CHOICES, "v1")
    store.catalog.set_connected(7)
    yield store
    store.close()


def look(store: Store, **settings: Any) -> dict[str, Check]:
    given = {"LABEL_STUDIO_API_KEY": TOKEN, "CLAPBOARD_TRAIN_SCHEDULE": NIGHTLY} | settings
    return {check.name: check for check in check_plans(Settings(**given), store)}


def test_without_a_worker_that_plans_it_one_is_told_to_start_one(store: Store) -> None:
    found = look(store)
    assert [check.ok for check in found.values()] == [False, False]
    assert "start one that serves `learn` with CLAPBOARD_SYNC_S" in found["lost events"].message
    assert "start one that serves `train` with CLAPBOARD_TRAIN_SCHEDULE" in found["planned finetuning"].message


def test_what_nobody_planned_is_no_fault(store: Store) -> None:
    found = look(store, LABEL_STUDIO_API_KEY="", CLAPBOARD_TRAIN_SCHEDULE="")
    assert found == {"planned finetuning": Check("planned finetuning", True, "none: CLAPBOARD_TRAIN_SCHEDULE is empty")}


def test_it_is_fine_until_it_is_overdue(store: Store, clock: Clock) -> None:
    store.plans.settle(Plan("train", NIGHTLY, clock.now + 7200))
    store.plans.settle(Plan("sync", "600", math.inf))
    found = look(store)
    assert found["planned finetuning"].ok
    assert found["planned finetuning"].message.startswith("hasn't run yet, runs next in 2 h (")
    assert found["lost events"].message == "hasn't run yet, runs next when a worker starts"
    clock.advance(7200 + OVERDUE_S + 1)
    check = look(store)["planned finetuning"]
    assert not check.ok
    assert "It has been overdue since" in check.message
    assert "makes up for it with one run" in check.message


def test_another_schedule_than_the_workers_is_told(store: Store, clock: Clock) -> None:
    store.plans.settle(Plan("train", "0 4 * * *", clock.now + 7200))
    check = look(store)["planned finetuning"]
    assert not check.ok
    assert "use CLAPBOARD_TRAIN_SCHEDULE=0 4 * * *, not 0 3 * * *" in check.message


def test_one_that_failed_last_is_told_with_its_reason_until_one_goes_well(store: Store, clock: Clock) -> None:
    plan = Plan("train", NIGHTLY, clock.now)
    store.plans.settle(plan)
    assert store.carry_out(plan, clock.now + 7200, "train", [JobRequest("train", 7)])
    (job,) = store.jobs.claim("a worker", "train", 1)
    store.jobs.fail(job, TrainingError("It has no labels."))
    clock.advance(600)
    check = look(store)["planned finetuning"]
    assert not check.ok
    assert check.message.startswith("last ran 10 min ago (")
    assert check.message.endswith(f"The last run failed: project 7, job {job.id}: It has no labels.")
    store.jobs.add("train", [JobRequest("train", 7)])
    store.jobs.done(*store.jobs.claim("a worker", "train", 1))
    assert look(store)["planned finetuning"].ok
