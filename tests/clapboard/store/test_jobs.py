from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from clapboard.errors import AudioError, NotFoundError, SourceUnavailable
from clapboard.store import Store
from clapboard.store.job_records import claimable
from clapboard.store.jobs import OPEN, Job, JobRequest, State
from clapboard.store.predictions import StoredPrediction
from tests.clapboard.store.conftest import Clock
from tests.support.together import together

BATCH, INTERACTIVE, LEARN = "batch", "interactive", "learn"
LEASE_S = 30.0


def wish(task: int, *, push: bool = False, version: str = "v1", **payload: object) -> JobRequest:
    return JobRequest("predict", project=1, task=task, model_version=version, payload=payload, push=push)


def prediction_of(job: Job) -> StoredPrediction:
    return StoredPrediction(job.project, job.task, job.model_version, "uri", 0.5, [{"type": "choices"}])


def claim_one(store: Store, worker: str = "w", queue: str = BATCH) -> Job:
    (job,) = store.jobs.claim(worker, queue, 1)
    return job


# Adding


def test_adding_gives_one_queued_job_for_each_request_in_order(store: Store) -> None:
    ids = store.jobs.add(BATCH, [wish(task) for task in (7, 3, 5)])
    jobs = [store.jobs.get(job_id) for job_id in ids]
    assert [job.task for job in jobs] == [7, 3, 5]
    assert {(job.state, job.queue, job.attempts, job.worker) for job in jobs} == {(State.QUEUED, BATCH, 0, None)}


def test_asking_again_joins_the_open_job(store: Store) -> None:
    assert store.jobs.add(BATCH, [wish(1), wish(2)]) == store.jobs.add(BATCH, [wish(1), wish(2)])


def test_asking_twice_in_one_call_gives_one_job(store: Store) -> None:
    first, second = store.jobs.add(BATCH, [wish(1), wish(1)])
    assert first == second


def test_of_several_alike_the_last_payload_counts_and_any_push(store: Store) -> None:
    ids = store.jobs.add(BATCH, [wish(1, push=True, n=1), wish(2, n=1), wish(1, n=2), wish(1, n=3)])
    assert ids[0] == ids[2] == ids[3] != ids[1]
    assert (store.jobs.get(ids[0]).payload, store.jobs.get(ids[0]).push) == ({"n": 3}, True)
    assert (store.jobs.get(ids[1]).payload, store.jobs.get(ids[1]).push) == ({"n": 1}, False)


def test_thousands_are_added_at_once_beside_those_that_are_open(store: Store) -> None:
    before = dict(
        zip(range(0, 2500, 3), store.jobs.add(BATCH, [wish(task) for task in range(0, 2500, 3)]), strict=True)
    )
    ids = store.jobs.add(BATCH, [wish(task) for task in reversed(range(2500))])
    by_task = dict(zip(reversed(range(2500)), ids, strict=True))
    assert {task: by_task[task] for task in before} == before
    assert store.jobs.counts() == {(BATCH, State.QUEUED): 2500}
    assert all(store.jobs.get(by_task[task]).task == task for task in (0, 1, 1234, 2499))


def test_tasks_that_have_failed_are_told_by_version(store: Store) -> None:
    store.jobs.add(BATCH, [wish(1), wish(2), wish(3, version="v2")])
    for job in store.jobs.claim("w", BATCH, 3):
        store.jobs.done(job) if job.task == 2 else store.jobs.fail(job, AudioError("no."))
    assert (store.jobs.failed_tasks(1, "v1"), store.jobs.failed_tasks(1, "v2")) == ({1}, {3})
    assert store.jobs.failed_tasks(2, "v1") == set()


def test_a_running_job_is_joined_too(store: Store) -> None:
    store.jobs.add(BATCH, [wish(1)])
    job = claim_one(store)
    assert store.jobs.add(BATCH, [wish(1)]) == [job.id]


@pytest.mark.parametrize("end", [State.DONE, State.FAILED])
def test_an_ended_job_is_not_joined(store: Store, end: State) -> None:
    store.jobs.add(BATCH, [wish(1)])
    job = claim_one(store)
    store.jobs.done(job) if end == State.DONE else store.jobs.fail(job, AudioError("no."))
    (again,) = store.jobs.add(BATCH, [wish(1)])
    assert again != job.id
    assert store.jobs.get(job.id).state == end


@pytest.mark.parametrize(
    "other",
    [
        JobRequest("embed", 1, 1, "v1"),
        JobRequest("predict", 2, 1, "v1"),
        JobRequest("predict", 1, 2, "v1"),
        JobRequest("predict", 1, 1, "v2"),
    ],
)
def test_another_subject_is_another_job(store: Store, other: JobRequest) -> None:
    assert store.jobs.add(BATCH, [wish(1)]) != store.jobs.add(BATCH, [other])


def test_an_urgent_request_moves_the_open_job_to_the_interactive_queue_and_nothing_moves_it_back(store: Store) -> None:
    (job_id,) = store.jobs.add(BATCH, [wish(1)])
    store.jobs.add(INTERACTIVE, [wish(1)])
    assert store.jobs.get(job_id).queue == INTERACTIVE
    store.jobs.add(BATCH, [wish(1)])
    assert store.jobs.get(job_id).queue == INTERACTIVE


def test_a_job_that_anybody_wants_pushed_is_pushed(store: Store) -> None:
    (job_id,) = store.jobs.add(BATCH, [wish(1)])
    assert not store.jobs.get(job_id).push
    store.jobs.add(BATCH, [wish(1, push=True)])
    assert store.jobs.get(job_id).push
    store.jobs.add(INTERACTIVE, [wish(1)])
    assert store.jobs.get(job_id).push


def test_the_payload_comes_back_as_it_was_given(store: Store) -> None:
    payload = {"uri": "s3://b/ключ «1».wav", "nested": [1, 2.5, None, {"a": True}]}
    (job_id,) = store.jobs.add(BATCH, [JobRequest("predict", 1, 1, "v1", payload)])
    assert store.jobs.get(job_id).payload == payload


def test_concurrent_adders_open_one_job_for_one_subject(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    tasks = range(20)
    ids = together([lambda store=store: store.jobs.add(BATCH, [wish(task) for task in tasks]) for store in stores])
    assert all(some == ids[0] for some in ids)
    assert stores[0].jobs.counts() == {(BATCH, State.QUEUED): len(tasks)}


def test_adders_that_come_from_opposite_ends_dont_block_each_other(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    wishes = [wish(task) for task in range(200)]
    orders = [wishes, wishes[::-1], wishes[100:] + wishes[:100], wishes[::-1]]

    def add(store: Store, order: list[JobRequest]) -> dict[int, int]:
        return dict(zip((request.task for request in order), store.jobs.add(BATCH, order), strict=True))

    ids = together([lambda pair=pair: add(*pair) for pair in zip(stores, orders, strict=True)])
    assert all(some == ids[0] for some in ids)


def test_many_writers_of_every_kind_at_once_never_deadlock(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(5)]
    wishes = [wish(task) for task in range(60)]
    stores[0].jobs.add(BATCH, wishes[::-1])
    stores[0].jobs.claim("w", BATCH, 60)
    tasks = list(range(60))
    rounds = range(8)
    calls: list[Callable[[], object]] = [
        lambda: [stores[0].jobs.add(BATCH, wishes) for _ in rounds],
        lambda: [stores[1].jobs.add(INTERACTIVE, wishes[::-1]) for _ in rounds],
        lambda: [stores[2].jobs.heartbeat("w") for _ in rounds for _ in rounds],
        lambda: [stores[3].jobs.owe_push(1, tasks, "v1") for _ in rounds for _ in rounds],
        lambda: [stores[4].jobs.requeue_lost(-1.0) and stores[4].jobs.claim("w", INTERACTIVE, 60) for _ in rounds],
    ]
    together(calls)
    # A job that was lost too often has failed, and whoever wished for it after that got another.
    left = stores[0].jobs.newest(limit=1000)
    assert {job.task for job in left} == set(tasks)
    still_open = [job.task for job in left if job.state in OPEN]
    assert len(still_open) == len(set(still_open))


# Claiming


def test_a_claimed_job_runs_for_its_worker(store: Store, clock: Callable[[], float]) -> None:
    store.jobs.add(BATCH, [wish(1)])
    job = claim_one(store, "worker-1")
    assert (job.state, job.worker, job.attempts, job.started_at) == (State.RUNNING, "worker-1", 1, clock())
    assert store.jobs.get(job.id) == job
    assert store.jobs.claim("worker-2", BATCH, 10) == []


def test_claims_take_the_oldest_of_their_queue_first(store: Store) -> None:
    ids = store.jobs.add(BATCH, [wish(task) for task in range(5)])
    urgent = store.jobs.add(INTERACTIVE, [wish(9)])
    assert [job.id for job in store.jobs.claim("w", BATCH, 3)] == ids[:3]
    assert [job.id for job in store.jobs.claim("w", BATCH, 3)] == ids[3:]
    assert [job.id for job in store.jobs.claim("w", INTERACTIVE, 3)] == urgent


def test_jobs_of_other_kinds_than_those_that_come_together_are_claimed_one_at_a_time(store: Store) -> None:
    searches = [JobRequest("search", 1, model_version=str(number)) for number in range(2)]
    ids = store.jobs.add(BATCH, [wish(1), searches[0], wish(2), searches[1], wish(3)])
    claims = [[job.id for job in store.jobs.claim("w", BATCH, 10, together="predict")] for _ in range(4)]
    assert claims == [[ids[0], ids[2], ids[4]], [ids[1]], [ids[3]], []]


def test_concurrent_workers_never_get_the_same_job_and_leave_none(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(6)]
    ids = stores[0].jobs.add(BATCH, [wish(task) for task in range(90)])

    def work(store: Store, name: str) -> list[int]:
        claims = iter(lambda: [job.id for job in store.jobs.claim(name, BATCH, 4)], [])
        return list(itertools.chain.from_iterable(claims))

    claimed = together([lambda store=store, i=i: work(store, f"w{i}") for i, store in enumerate(stores)])
    assert sorted(itertools.chain.from_iterable(claimed)) == ids


def test_a_job_tried_before_is_handed_out_alone(store: Store, clock: Callable[..., float]) -> None:
    store.jobs.add(BATCH, [wish(task) for task in range(3)])
    store.jobs.claim("killed", BATCH, 3)
    clock.advance(LEASE_S + 1)
    store.jobs.requeue_lost(LEASE_S)
    store.jobs.add(BATCH, [wish(task) for task in range(3, 6)])
    batches = [[job.task for job in store.jobs.claim("w", BATCH, 16)] for _ in range(5)]
    assert batches == [[0], [1], [2], [3, 4, 5], []]


def test_jobs_tried_before_dont_thin_the_batches_of_those_behind_them(
    store: Store, clock: Callable[..., float]
) -> None:
    store.jobs.add(BATCH, [wish(task) for task in range(7)])
    store.jobs.claim("killed", BATCH, 7)
    clock.advance(LEASE_S + 1)
    store.jobs.requeue_lost(LEASE_S)
    store.jobs.add(BATCH, [wish(task) for task in range(7, 39)])
    sizes = [len(store.jobs.claim("w", BATCH, 8)) for _ in range(11)]
    assert sizes == [1] * 7 + [8] * 4


# Heartbeat and lease


def test_a_job_whose_worker_falls_silent_is_queued_again(store: Store, clock: Callable[..., float]) -> None:
    store.jobs.add(BATCH, [wish(1)])
    job = claim_one(store, "killed")
    clock.advance(LEASE_S)
    assert store.jobs.requeue_lost(LEASE_S) == set()
    clock.advance(1)
    assert store.jobs.requeue_lost(LEASE_S) == {BATCH}
    assert store.jobs.queues_with_work([INTERACTIVE, BATCH]) == [BATCH]
    again = claim_one(store, "next")
    assert (again.id, again.attempts, again.worker) == (job.id, 2, "next")


def test_a_heartbeat_keeps_the_workers_jobs_and_nobody_elses(store: Store, clock: Callable[..., float]) -> None:
    store.jobs.add(BATCH, [wish(1), wish(2)])
    alive, silent = claim_one(store, "alive"), claim_one(store, "silent")
    clock.advance(LEASE_S)
    store.jobs.heartbeat("alive")
    clock.advance(1)
    assert store.jobs.requeue_lost(LEASE_S) == {BATCH}
    assert store.jobs.get(alive.id).state == State.RUNNING
    assert store.jobs.get(silent.id).state == State.QUEUED


def test_a_job_that_loses_its_worker_at_every_try_fails_and_says_so(store: Store, clock: Callable[..., float]) -> None:
    (job_id,) = store.jobs.add(BATCH, [wish(1)])
    for _ in range(3):
        claim_one(store, "killed")
        clock.advance(LEASE_S + 1)
        store.jobs.requeue_lost(LEASE_S)
    job = store.jobs.get(job_id)
    assert (job.state, job.attempts, job.error_code, job.finished_at) == (State.FAILED, 3, "worker_lost", clock())
    assert job.error is not None
    assert "worker" in job.error
    assert store.jobs.claim("w", BATCH, 1) == []


def test_two_watchmen_queue_a_lost_job_once(open_store: Callable[[], Store], clock: Callable[..., float]) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].jobs.add(BATCH, [wish(task) for task in range(30)])
    stores[0].jobs.claim("killed", BATCH, 30)
    clock.advance(LEASE_S + 1)
    together([lambda store=store: store.jobs.requeue_lost(LEASE_S) for store in stores])
    assert stores[0].jobs.counts() == {(BATCH, State.QUEUED): 30}


# Ending


def test_a_finished_job_says_whether_its_result_is_owed(store: Store) -> None:
    store.jobs.add(BATCH, [wish(1), wish(2, push=True)])
    first, second = store.jobs.claim("w", BATCH, 2)
    assert not store.finish_with_prediction(first, prediction_of(first))
    assert store.finish_with_prediction(second, prediction_of(second))
    assert store.jobs.get(first.id).state == State.DONE
    assert store.predictions.num_owed() == 1


def test_a_worker_that_lost_its_job_cant_finish_it_and_its_result_is_dropped(
    store: Store, clock: Callable[..., float]
) -> None:
    store.jobs.add(BATCH, [wish(1, push=True)])
    late = claim_one(store, "late")
    clock.advance(LEASE_S + 1)
    store.jobs.requeue_lost(LEASE_S)
    with store.database.write() as connection:
        assert store.jobs.finish(connection, late) is None
    claim_one(store, "next")
    assert not store.finish_with_prediction(late, prediction_of(late))
    store.jobs.fail(late, AudioError("too late."))
    store.jobs.done(late, "too late")
    job = store.jobs.get(late.id)
    assert (job.state, job.worker, job.error) == (State.RUNNING, "next", None)
    assert store.predictions.cached(1, {1: "uri"}, "v1") == set()


def test_a_worker_that_got_its_lost_job_back_finishes_the_new_try_alone(
    store: Store, clock: Callable[..., float]
) -> None:
    store.jobs.add(BATCH, [wish(1)])
    first_try = claim_one(store)
    clock.advance(LEASE_S + 1)
    store.jobs.requeue_lost(LEASE_S)
    second_try = claim_one(store)
    store.jobs.fail(first_try, AudioError("from before."))
    assert store.jobs.get(first_try.id).state == State.RUNNING
    store.finish_with_prediction(second_try, prediction_of(second_try))
    assert store.jobs.get(first_try.id).state == State.DONE


def test_a_job_finishes_once(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].jobs.add(BATCH, [wish(1, push=True)])
    job = claim_one(stores[0])
    owed = together([lambda store=store: store.finish_with_prediction(job, prediction_of(job)) for store in stores])
    assert sorted(owed) == [False, False, False, True]


def test_a_permanent_error_ends_the_job_with_its_reason(store: Store, clock: Callable[[], float]) -> None:
    store.jobs.add(BATCH, [wish(1)])
    job = claim_one(store)
    store.jobs.fail(job, AudioError("rain.wav is empty: export or upload it again."))
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.finished_at, ended.error_code) == (State.FAILED, clock(), "audio")
    assert ended.error == "rain.wav is empty: export or upload it again."


def test_a_passing_error_queues_the_job_again_later_each_time_until_it_was_tried_enough(
    store: Store, clock: Callable[..., float]
) -> None:
    (job_id,) = store.jobs.add(BATCH, [wish(1)])
    waits_s = []
    for _ in range(2):
        again = store.jobs.fail(claim_one(store), SourceUnavailable("the bucket didn't answer."))
        assert again == store.jobs.get(job_id).state == State.QUEUED
        assert store.jobs.queues_with_work([BATCH]) == []
        start = clock()
        while not store.jobs.queues_with_work([BATCH]):
            assert store.jobs.claim("w", BATCH, 1) == []
            clock.advance(1)
        waits_s.append(clock() - start)
    assert 0 < waits_s[0] < waits_s[1] < 60
    last = store.jobs.fail(claim_one(store), SourceUnavailable("the bucket didn't answer."))
    ended = store.jobs.get(job_id)
    assert last == State.FAILED
    assert (ended.state, ended.attempts, ended.error) == (State.FAILED, 3, "the bucket didn't answer.")


@pytest.mark.parametrize("name", ["nul \x00 in it", "half a pair \ud800", "ключ «1»"])
def test_a_reason_is_kept_whatever_characters_a_file_name_has(store: Store, name: str) -> None:
    store.jobs.add(BATCH, [wish(1)])
    job = claim_one(store)
    store.jobs.fail(job, AudioError(f"{name}.wav is empty."))
    store.jobs.record_failure(BATCH, wish(2), AudioError(f"{name}.wav is empty."))
    for ended in (store.jobs.get(job.id), store.jobs.newest()[0]):
        assert ended.state == State.FAILED
        assert ended.error is not None
        assert ended.error.endswith(".wav is empty.")


def test_a_job_without_a_prediction_ends_with_a_word_on_what_came_of_it(store: Store) -> None:
    store.jobs.add("train", [JobRequest("refit", 1)])
    job = claim_one(store, queue="train")
    store.jobs.done(job, "12 labels")
    assert (store.jobs.get(job.id).state, store.jobs.get(job.id).error) == (State.DONE, "12 labels")


def test_a_request_that_cant_be_queued_is_kept_once_with_its_reason(store: Store) -> None:
    for _ in range(3):
        store.jobs.record_failure(INTERACTIVE, wish(1), AudioError("no audio in the task."))
    (job,) = store.jobs.newest(project=1, state=State.FAILED)
    assert (job.task, job.error_code, job.error) == (1, "audio", "no audio in the task.")
    store.jobs.record_failure(INTERACTIVE, wish(1), AudioError("another reason."))
    assert len(store.jobs.newest()) == 2


# What is owed


@pytest.mark.parametrize("attempt", range(8))
def test_a_result_asked_to_be_pushed_while_its_job_ends_is_owed_or_ready(
    open_store: Callable[[], Store], attempt: int
) -> None:
    worker, backend = open_store(), open_store()
    worker.jobs.add(INTERACTIVE, [wish(task) for task in range(6)])
    jobs = worker.jobs.claim("w", INTERACTIVE, 6)
    tasks = [job.task for job in jobs]

    def ask() -> dict[int, StoredPrediction]:
        backend.jobs.owe_push(1, tasks, "v1")
        wanted = {job.task: prediction_of(job).uri_key for job in jobs}
        return backend.predictions.take_for_answer(1, wanted, "v1", since=backend.jobs.get(jobs[0].id).created_at)

    def finish() -> dict[int, StoredPrediction]:
        for job in jobs:
            worker.finish_with_prediction(job, prediction_of(job))
        return {}

    answered, _ = together([ask, finish] if attempt % 2 else [ask, finish][::-1])[:: 1 if attempt % 2 else -1]
    pushed = worker.predictions.take_for_push(10, LEASE_S)
    assert sorted([*answered, *(one.task for one in pushed)]) == tasks


def test_only_open_jobs_of_the_version_are_owed(store: Store) -> None:
    ids = store.jobs.add(BATCH, [wish(1), wish(2), wish(1, version="v2"), JobRequest("predict", 2, 1, "v1")])
    store.jobs.owe_push(1, [1], "v1")
    assert [store.jobs.get(job_id).push for job_id in ids] == [True, False, False, False]


# Looking


def test_open_ids_names_those_that_have_not_ended(store: Store) -> None:
    ids = store.jobs.add(BATCH, [wish(task) for task in range(4)])
    done, failed, _running = store.jobs.claim("w", BATCH, 3)
    store.jobs.done(done)
    store.jobs.fail(failed, AudioError("no."))
    assert store.jobs.open_ids([*ids, 999]) == set(ids[2:])
    assert store.jobs.open_ids([]) == set()


def test_an_unknown_job_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="Job 5"):
        store.jobs.get(5)


def test_jobs_are_listed_newest_first_by_project_and_state(store: Store) -> None:
    other = JobRequest("predict", 2, 1, "v1")
    ids = [store.jobs.add(BATCH, [request])[0] for request in (wish(1), wish(2), other, wish(3))]
    store.jobs.done(claim_one(store))
    assert [job.id for job in store.jobs.newest(limit=3)] == ids[:0:-1]
    assert [job.id for job in store.jobs.newest(project=1, state=State.QUEUED)] == [ids[3], ids[1]]


def test_failures_are_counted_by_code_and_listed_for_a_version_since_a_moment(
    store: Store, clock: Callable[..., float]
) -> None:
    store.jobs.add(BATCH, [wish(1), wish(2), wish(3), wish(4, version="v2")])
    early, *late = store.jobs.claim("w", BATCH, 4)
    store.jobs.fail(early, AudioError("early."))
    since = clock.advance(1)
    assert store.jobs.num_open(1, "v1") == 2
    for job in late:
        store.jobs.fail(job, AudioError("late.") if job.task != 3 else NotFoundError("gone."))
    assert [(job.task, job.error) for job in store.jobs.failed_since(1, "v1", since)] == [(2, "late."), (3, "gone.")]
    assert store.jobs.failures() == {"audio": 3, "not_found": 1}
    assert store.jobs.num_open(1, "v1") == 0


def test_counts_are_by_queue_and_state(store: Store) -> None:
    ids = store.jobs.add(BATCH, [wish(1), wish(2), JobRequest("predict", 2, 1, "v1")])
    store.jobs.add(INTERACTIVE, [wish(3)])
    store.jobs.done(claim_one(store))
    assert store.jobs.counts() == {(BATCH, State.DONE): 1, (BATCH, State.QUEUED): 2, (INTERACTIVE, State.QUEUED): 1}
    assert store.jobs.counts(project=2) == {(BATCH, State.QUEUED): 1}
    assert store.jobs.counts(since_id=ids[-1]) == {(INTERACTIVE, State.QUEUED): 1}


def test_the_oldest_wait_is_known_for_each_queue(store: Store, clock: Callable[..., float]) -> None:
    store.jobs.add(BATCH, [wish(1)])
    clock.advance(5)
    store.jobs.add(BATCH, [wish(2)])
    store.jobs.add(INTERACTIVE, [wish(3)])
    clock.advance(2)
    assert store.jobs.oldest_queued_s() == {BATCH: 7, INTERACTIVE: 2}
    claim_one(store)
    assert store.jobs.oldest_queued_s()[BATCH] == 2


def test_what_is_put_off_waits_from_the_moment_on_when_it_is_due(store: Store, clock: Callable[..., float]) -> None:
    store.jobs.add(BATCH, [JobRequest("prune", 1, delay_s=30.0)])
    clock.advance(20)
    assert store.jobs.oldest_queued_s() == {}
    clock.advance(14)
    assert store.jobs.oldest_queued_s() == {BATCH: 4}


def test_where_several_jobs_stand_is_known_at_once(store: Store) -> None:
    ids = store.jobs.add(BATCH, [wish(1), wish(2), wish(3)])
    store.jobs.done(claim_one(store))
    claim_one(store)
    states = dict(zip(ids, (State.DONE, State.RUNNING, State.QUEUED), strict=True))
    assert store.jobs.states([*ids, 999]) == states
    assert store.jobs.states([]) == {}


# Progress, putting off, joining


def test_a_running_job_says_how_far_it_is_to_whoever_looks(store: Store) -> None:
    store.jobs.add(BATCH, [wish(1)])
    job = claim_one(store)
    assert job.progress is None
    store.jobs.report(job, "epoch 1 of 3")
    store.jobs.report(job, "epoch 2 of 3")
    assert store.jobs.get(job.id).progress == "epoch 2 of 3"
    store.jobs.done(job, "It is done.")
    store.jobs.report(job, "epoch 3 of 3")  # too late
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.progress, ended.error) == (State.DONE, "epoch 2 of 3", "It is done.")


def test_a_job_that_is_put_off_is_queued_again_and_that_try_does_not_count(
    store: Store, clock: Callable[..., float]
) -> None:
    (job_id,) = store.jobs.add(BATCH, [wish(1)])
    for _ in range(10):  # more often than a job is tried
        job = claim_one(store)
        assert job.attempts == 1
        store.jobs.put_off(job, 5.0, "3 are still to come")
        waiting = store.jobs.get(job_id)
        assert (waiting.state, waiting.attempts, waiting.worker) == (State.QUEUED, 0, None)
        assert waiting.progress == "3 are still to come"
        clock.advance(4.9)
        assert store.jobs.claim("w", BATCH, 1) == []
        clock.advance(0.1)
    store.jobs.done(claim_one(store))
    assert store.jobs.get(job_id).state == State.DONE


def test_whoever_runs_a_job_can_tell_that_it_was_asked_for_meanwhile(store: Store, clock: Callable[..., float]) -> None:
    asked = JobRequest("align", 1, delay_s=5.0)
    (job_id,) = store.jobs.add(BATCH, [asked])
    store.jobs.add(BATCH, [asked])
    clock.advance(5)
    job = claim_one(store)
    assert not store.jobs.asked_again(job)  # that was before
    assert store.jobs.add(BATCH, [asked]) == [job_id]
    assert store.jobs.asked_again(job)
    store.jobs.put_off(job, 5.0, "more is to come")
    clock.advance(5)
    job = claim_one(store)
    assert not store.jobs.asked_again(job)
    store.jobs.add(BATCH, [asked])
    store.jobs.done(job)
    assert store.jobs.asked_again(job)
    (another,) = store.jobs.add(BATCH, [asked])
    assert another != job_id


def test_a_job_that_is_no_longer_held_is_not_put_off(store: Store, clock: Callable[..., float]) -> None:
    store.jobs.add(BATCH, [wish(1)])
    lost = claim_one(store, "lost")
    clock.advance(LEASE_S + 1)
    store.jobs.requeue_lost(LEASE_S)
    heir = claim_one(store, "heir")
    store.jobs.put_off(lost, 100.0, "late")
    found = store.jobs.get(heir.id)
    assert (found.state, found.worker, found.progress) == (State.RUNNING, "heir", None)


def late(delay_s: float | None) -> JobRequest:
    return JobRequest("train", 1, delay_s=delay_s)


def is_due(store: Store) -> bool:
    return store.jobs.queues_with_work([BATCH]) == [BATCH]


def test_a_delayed_job_waits_and_each_who_asks_with_a_delay_puts_it_off(
    store: Store, clock: Callable[..., float]
) -> None:
    (job_id,) = store.jobs.add(BATCH, [late(60.0)])
    clock.advance(59)
    assert not is_due(store)
    assert store.jobs.add(BATCH, [late(60.0)]) == [job_id]
    clock.advance(59)
    assert not is_due(store)
    assert store.jobs.add(BATCH, [late(None)]) == [job_id]  # whoever has no wish leaves it where it is
    assert not is_due(store)
    clock.advance(1)
    assert [job.id for job in store.jobs.claim("w", BATCH, 5)] == [job_id]


def test_who_wants_it_at_once_gets_it_and_nobody_puts_it_off_after_that(
    store: Store, clock: Callable[..., float]
) -> None:
    (job_id,) = store.jobs.add(BATCH, [late(60.0)])
    assert store.jobs.add(BATCH, [late(0.0)]) == [job_id]
    assert is_due(store)
    store.jobs.add(BATCH, [late(60.0)])
    assert is_due(store)


def test_the_last_job_of_a_kind_is_the_newest_that_was_ever_begun(store: Store) -> None:
    assert store.jobs.last("train", 1) is None
    (first,) = store.jobs.add(BATCH, [late(None)])
    assert store.jobs.last("train", 1) is None
    store.jobs.done(claim_one(store))
    store.jobs.add(BATCH, [late(None), JobRequest("train", 2), JobRequest("sync", 1)])
    found = store.jobs.last("train", 1)
    assert found is not None
    assert (found.id, found.state) == (first, State.DONE)


class TestForWhom:
    """Workers of several models, or of one in several dtypes, on one store."""

    @pytest.fixture
    def asking(self, url: str, clock: Clock) -> Iterator[Store]:
        """The store as a backend with CLAPBOARD_MODEL=mini opens it."""
        store = Store(url, clock=clock, model="mini")
        yield store
        store.close()

    @pytest.mark.parametrize(
        ("asked", "worker", "may"),
        [
            ("v1 float32", ("mini", "v1", "float32"), True),
            ("v1 float32", ("mini", "v1", "bfloat16"), False),
            ("v1 float32", ("mini", "v2", "float32"), False),  # other weights by the same name
            ("v1 float32", ("other", "v1", "float32"), False),
            ("float32", ("mini", "v2", "float32"), True),  # a finetuned encoder, loaded on demand
            ("float32", ("mini", "v1", "bfloat16"), False),
            ("float32", ("other", "v1", "float32"), False),
            ("v1 int8-0123abcd", ("mini", "v1", "int8-0123abcd"), True),
            ("v1 int8-0123abcd", ("mini", "v1", "int8-4567cdef"), False),  # other vectors
            ("int8", ("mini", "v1", "int8-0123abcd"), True),  # a finetuned encoder has a calibration of its own
            ("float32", ("mini", "v1", "int8-0123abcd"), False),
            ("", ("mini", "v2", "bfloat16"), True),  # about a whole project
            ("", ("other", "v1", "float32"), False),
        ],
    )
    def test_a_job_is_claimed_by_workers_of_its_encoder_alone(
        self, asking: Store, asked: str, worker: tuple[str, str, str], may: bool
    ) -> None:
        asking.jobs.add(BATCH, [JobRequest("predict", 1, 1, "v1", encoder=asked)])
        assert asking.jobs.queues_with_work([BATCH], claimable(*worker)) == ([BATCH] if may else [])
        assert bool(asking.jobs.claim("w", BATCH, 10, encoders=claimable(*worker))) is may

    def test_one_that_others_wait_behind_holds_nobody_up(self, asking: Store) -> None:
        asking.jobs.add(BATCH, [JobRequest("predict", 1, task, "v1", encoder="v2 float32") for task in range(1, 20)])
        asking.jobs.add(BATCH, [JobRequest("predict", 1, 20, "v1", encoder="v1 float32")])
        (job,) = asking.jobs.claim("w", BATCH, 10, encoders=claimable("mini", "v1", "float32"))
        assert job.task == 20
        assert asking.jobs.queued_for() == {"mini v2 float32": 19}

    def test_an_open_job_is_for_whom_it_was_last_asked(self, asking: Store, url: str, clock: Clock) -> None:
        asking.jobs.add(LEARN, [JobRequest("learn", 1)])
        after = Store(url, clock=clock, model="other")  # CLAPBOARD_MODEL was changed
        after.jobs.add(LEARN, [JobRequest("learn", 1)])
        assert after.jobs.queued_for() == {"other": 1}
        after.close()

    def test_what_an_older_release_has_queued_is_for_any_worker(self, store: Store) -> None:
        store.jobs.add(BATCH, [JobRequest("predict", 1, 1, "v1", encoder="v1 float32")])
        assert store.jobs.claim("w", BATCH, 10, encoders=claimable("mini", "v2", "float32"))
