from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from clapboard.errors import AudioError
from clapboard.store import Store
from clapboard.store import retention as retaining
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import Job, JobRequest, State
from clapboard.store.predictions import StoredPrediction
from clapboard.store.retention import DAY_S, Retention
from clapboard.store.schema import job_tallies, jobs
from clapboard.store.tasks import KnownTask
from tests.clapboard.store.conftest import Clock


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that several are needed."""
    monkeypatch.setattr(retaining, "AT_ONCE", 2)


@pytest.fixture
def retention(store: Store, clock: Clock) -> Retention:
    return Retention(store.database, clock, keep_days=30)


def run(store: Store, kind: str, task: int = 0, error: AudioError | None = None) -> int:
    """A job that has ended; its id."""
    store.jobs.add("batch", [JobRequest(kind, 1, task, "v1")])
    (job,) = store.jobs.claim("w", "batch", 1)
    assert isinstance(job, Job)
    if error:
        store.jobs.fail(job, error)
    else:
        store.jobs.done(job)
    return job.id


def job_ids(store: Store) -> list[int]:
    with store.database.read() as connection:
        return list(connection.scalars(select(jobs.c.id).order_by(jobs.c.id)))


def test_old_jobs_go_but_never_open_ones_nor_the_newest_of_their_kind(
    store: Store, clock: Clock, retention: Retention
) -> None:
    damaged = AudioError("a.wav is damaged.")
    for task in range(1, 6):
        run(store, "predict", task)
    run(store, "predict", 6, damaged)
    still_failed = run(store, "predict", 7, damaged)
    run(store, "predict", 6)  # so its failure is nothing that anybody has to see any more
    run(store, "train")
    last_failed = run(store, "train", error=damaged)
    last_done = run(store, "train")
    (open_job,) = store.jobs.add("batch", [JobRequest("predict", 1, 99, "v1")])
    assert retention.finish() == {}
    clock.advance(31 * DAY_S)
    young = run(store, "predict", 99)
    assert young == open_job
    (waiting,) = store.jobs.add("batch", [JobRequest("predict", 1, 100, "v1")])
    assert retention.finish() == {"jobs": 8}
    assert job_ids(store) == [still_failed, last_failed, last_done, young, waiting]
    last = store.jobs.last("train", 1)
    assert last is not None
    assert last.id == last_done
    counts = store.jobs.counts()
    assert counts == {("batch", State.DONE): 2, ("batch", State.FAILED): 2, ("batch", State.QUEUED): 1}
    if store.database.engine.dialect.name == "postgresql":
        with store.database.read() as connection:
            assert set(connection.scalars(select(job_tallies.c.session))) == {0}  # summed up


def annotated(number: int, minute: int, label: str = "dog", **more: object) -> dict[str, object]:
    result = [{"from_name": "c", "to_name": "a", "type": "choices", "id": "r", "value": {"choices": [label]}}]
    said = {"id": number, "task": 10 + number, "project": 1, "result": result, "completed_by": 1}
    return {"annotation": said | {"updated_at": f"2026-11-22T12:{minute:02}:00Z"}, "project": {"id": 1}, **more}


def test_the_events_that_annotations_stand_by_are_kept(store: Store, clock: Clock, retention: Retention) -> None:
    replaced = []
    for minute, label in enumerate(("dog", "rain", "wind"), 1):
        replaced.append(store.inbox.append("ANNOTATION_UPDATED", 1, annotated(1, minute, label)))
        replaced.append(store.inbox.append("PROJECT_UPDATED", 1, {"project": {"id": 1}}))
    stood_by = replaced.pop(4)
    replaced.append(store.inbox.append("ANNOTATION_UPDATED", 1, annotated(1, 3, "late twin")))
    kept = [
        stood_by,
        store.inbox.append("ANNOTATION_CREATED", 1, annotated(2, 1)),  # deleted below, and seen after that
        store.inbox.append("ANNOTATIONS_DELETED", 1, {"annotations": [{"id": 2}, {"id": 3}]}),
        store.inbox.append("ANNOTATION_CREATED", 1, annotated(2, 1, source="sync")),
        store.inbox.append("ANNOTATION_CREATED", 1, annotated(3, 1)),  # it comes late, and stays deleted
    ]
    store.ledger.catch_up()
    standing, entries = store.ledger.standing(1), store.ledger.num_entries(1)
    assert [(entry.annotation, entry.labels) for entry in standing] == [(1, ["wind"]), (2, ["dog"])]
    clock.advance(31 * DAY_S)
    young = [store.inbox.append("PROJECT_UPDATED", 1, {}), store.inbox.append("TASKS_CREATED", 1, {})]
    assert retention.finish() == {"events": len(replaced)}
    assert [event.id for event in store.inbox.events()] == [*kept, *young]
    assert [event.id for event in store.ledger.unread()] == young
    store.ledger.catch_up()
    assert store.ledger.replay(store.inbox).agrees
    assert store.annotations.recomputed(1) == store.ledger.standing(1) == standing
    assert store.ledger.num_entries(1) == entries  # else it might look as if nothing had been said since
    store.ledger.rebuild(1)
    assert store.ledger.standing(1) == standing


def test_what_is_replaced_later_goes_in_another_round(store: Store, clock: Clock, retention: Retention) -> None:
    store.inbox.append("ANNOTATION_CREATED", 1, annotated(1, 1))
    store.ledger.catch_up()
    clock.advance(31 * DAY_S)
    assert retention.finish() == {}
    store.inbox.append("ANNOTATION_UPDATED", 1, annotated(1, 2, "rain"))
    store.ledger.catch_up()
    assert retention.finish() == {}
    clock.advance(2 * DAY_S)
    removed = [retention.finish() for _ in range(2)]
    assert removed == [{}, {"events": 1}]


def test_a_new_event_never_gets_the_id_of_one_that_was_deleted(
    store: Store, clock: Clock, retention: Retention
) -> None:
    newest = [store.inbox.append("PROJECT_UPDATED", 1, {}) for _ in range(3)][-1]
    store.ledger.catch_up()
    clock.advance(31 * DAY_S)
    assert retention.finish() == {"events": 2}
    assert store.inbox.append("PROJECT_UPDATED", 1, {}) == newest + 1


def test_audio_that_no_task_has_is_forgotten_after_that_time(store: Store, clock: Clock, retention: Retention) -> None:
    store.tasks.put(1, [KnownTask(number, f"{number}.wav", f"key{number}", "s", held_out=False) for number in range(5)])
    for number in range(5):
        store.embeddings.put_recording(f"key{number}", Recording(f"sha{number}", 1, 1.0))
        store.embeddings.put(f"sha{number}", "e1", "float32", 0, np.full((1, 2), number, np.float32))
    store.embeddings.put_recording("other-address", Recording("sha3", 1, 1.0))
    store.predictions.put_all([StoredPrediction(1, 1, "v1", "key1", 0.5, [])], push=False)
    store.tasks.forget(1, [2, 3, 4])
    assert retention.finish() == {}  # from now on the time counts
    clock.advance(20 * DAY_S)
    store.tasks.put(1, [KnownTask(4, "4.wav", "key4", "s", held_out=False)])  # it was imported again
    retention.finish()
    store.tasks.forget(1, [4])
    retention.finish()
    clock.advance(20 * DAY_S)
    store.tasks.put(1, [KnownTask(9, "9.wav", "other-address", "s", held_out=False)])
    assert retention.finish() == {"recordings": 2}
    assert set(store.embeddings.recordings([f"key{number}" for number in range(5)])) == {"key0", "key1", "key4"}
    assert store.embeddings.count() == 4  # sha3 has another address
    assert store.embeddings.get([Recording("sha2", 1, 1.0)], "e1", "float32") == {}


def test_all_is_kept_for_ever_if_that_is_said(store: Store, clock: Clock) -> None:
    run(store, "predict", 1)
    clock.advance(1e4 * DAY_S)
    kept = Retention(store.database, clock, keep_days=0)
    kept.look()
    assert kept.finish() == {}
    assert len(job_ids(store)) == 1


def test_a_worker_rests_when_nothing_is_left(store: Store, clock: Clock, retention: Retention) -> None:
    for task in range(3):
        run(store, "predict", task)
    clock.advance(31 * DAY_S)
    for _ in range(3):
        retention.look()
    assert job_ids(store) == []
    run(store, "predict", 1)
    clock.advance(31 * DAY_S)
    retention.look()  # not yet
    assert len(job_ids(store)) == 1
