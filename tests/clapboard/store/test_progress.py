"""Work under way, on both databases, by a clock that the test moves."""

from __future__ import annotations

import pytest

from clapboard.errors import AudioError
from clapboard.queue.celery_app import BATCH, INTERACTIVE, LEARN
from clapboard.queue.pace import RATE_OVER_S
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import StoredPrediction
from clapboard.store.progress import PUSH, UnderWay
from tests.clapboard.store.conftest import Clock


def ask(store: Store, num_tasks: int, *, project: int = 1, queue: str = BATCH, version: str = "v1") -> None:
    store.jobs.add(queue, [JobRequest("predict", project, task, version) for task in range(1, num_tasks + 1)])


def work(store: Store, clock: Clock, num: int, each_s: float, queue: str = BATCH) -> None:
    """Do jobs one by one, each in that time."""
    for _ in range(num):
        (job,) = store.jobs.claim("w", queue, 1)
        clock.advance(each_s)
        store.jobs.done(job)


def only(store: Store, project: int | None = None) -> UnderWay:
    (found,) = store.progress.under_way(project)
    return found


class TestPredicting:
    def test_nothing_is_under_way_before_anybody_asked_and_when_all_is_done(self, store: Store, clock: Clock) -> None:
        assert store.progress.under_way() == []
        ask(store, 2)
        work(store, clock, 2, 1.0)
        assert store.progress.under_way() == []

    def test_before_the_first_job_has_ended_no_rate_is_known(self, store: Store, clock: Clock) -> None:
        ask(store, 10)
        assert only(store) == UnderWay(1, BATCH, "v1", 0, 10, None)
        store.jobs.claim("w", BATCH, 4)
        clock.advance(3)
        assert only(store) == UnderWay(1, BATCH, "v1", 0, 10, None)
        assert only(store).eta_s is None

    def test_the_rate_is_what_has_ended_since_the_work_began(self, store: Store, clock: Clock) -> None:
        ask(store, 100)
        clock.advance(1000)  # in which no worker was there
        work(store, clock, 20, 0.5)
        found = only(store)
        assert (found.num_done, found.num_total, found.per_s, found.eta_s) == (20, 100, 2.0, 40.0)

    def test_what_has_failed_has_ended_too(self, store: Store, clock: Clock) -> None:
        ask(store, 4)
        for _ in range(2):
            (job,) = store.jobs.claim("w", BATCH, 1)
            clock.advance(5)
            store.jobs.fail(job, AudioError("It is damaged."))
        found = only(store)
        assert (found.num_done, found.per_s, found.eta_s) == (2, 0.2, 10.0)

    def test_the_rate_is_that_of_the_last_minutes(self, store: Store, clock: Clock) -> None:
        ask(store, 200)
        work(store, clock, 50, 0.01)
        clock.advance(RATE_OVER_S)
        assert only(store).per_s is None
        work(store, clock, 30, 8.0)
        found = only(store)
        assert found.num_done == 80
        assert found.per_s == pytest.approx(0.125, rel=0.1)
        assert found.eta_s == pytest.approx(960, rel=0.1)

    def test_a_worker_that_stops_lets_the_rate_fall_until_it_is_unknown(self, store: Store, clock: Clock) -> None:
        ask(store, 100)
        work(store, clock, 10, 1.0)
        assert only(store).per_s == 1.0
        clock.advance(10)
        assert only(store).per_s == 0.5
        clock.advance(RATE_OVER_S)
        assert only(store).eta_s is None

    def test_what_was_never_begun_has_no_rate(self, store: Store) -> None:
        ask(store, 3)
        store.jobs.record_failure(BATCH, JobRequest("predict", 1, 9, "v1"), AudioError("It names no audio."))
        assert only(store) == UnderWay(1, BATCH, "v1", 1, 4, None)

    def test_projects_queues_and_versions_are_told_apart_and_other_kinds_left_out(
        self, store: Store, clock: Clock
    ) -> None:
        ask(store, 3, project=2)
        ask(store, 2, project=1, version="v2")
        ask(store, 5, project=1, version="v1", queue=INTERACTIVE)
        store.jobs.add(LEARN, [JobRequest("learn", 1)])
        work(store, clock, 1, 1.0, INTERACTIVE)
        assert store.progress.under_way() == [
            UnderWay(1, INTERACTIVE, "v1", 1, 5, 1.0),
            UnderWay(1, BATCH, "v2", 0, 2, None),
            UnderWay(2, BATCH, "v1", 0, 3, None),
        ]
        assert only(store, 2).project == 2


class TestPushing:
    @pytest.fixture(autouse=True)
    def _owed(self, store: Store) -> None:
        """Ten predictions of project 1 that are owed, and one of project 2 that isn't."""
        found = [StoredPrediction(1, task, "v1", "key", 0.5, []) for task in range(1, 11)]
        store.predictions.put_all(found, push=True)
        store.predictions.put_all([StoredPrediction(2, 1, "v1", "key", 0.5, [])], push=False)

    def test_what_is_owed_waits_without_a_rate(self, store: Store) -> None:
        assert only(store) == UnderWay(1, PUSH, "v1", 0, 10, None)
        assert store.progress.under_way(2) == []

    def test_the_rate_is_that_between_pushes(self, store: Store, clock: Clock) -> None:
        for expected in (None, 0.4, 0.4):
            clock.advance(5)
            taken = store.predictions.take_for_push(2, 60)
            store.predictions.pushed(1, [one.task for one in taken], "v1")
            assert only(store).per_s == expected
        found = only(store)
        assert (found.num_done, found.num_total, found.eta_s) == (6, 10, 10.0)

    def test_long_after_the_last_push_no_rate_is_known(self, store: Store, clock: Clock) -> None:
        for _ in range(2):
            clock.advance(5)
            taken = store.predictions.take_for_push(2, 600)
            store.predictions.pushed(1, [one.task for one in taken], "v1")
        clock.advance(RATE_OVER_S + 1)
        assert only(store) == UnderWay(1, PUSH, "v1", 4, 10, None)

    def test_what_is_in_hand_is_not_done(self, store: Store) -> None:
        store.predictions.take_for_push(10, 60)
        assert only(store) == UnderWay(1, PUSH, "v1", 0, 10, None)
