"""Chores: jobs about a whole project."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.jobs import BATCH, LEARN, TRAIN
from clapboard.label_studio.client import LabelStudioClient
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import Job, JobRequest, State
from tests.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.workers.conftest import CountingEncoder, no_checkpoint
from workers.chores import Chores
from workers.encoders import EncoderPool
from workers.finetune import Finetuner
from workers.heads import Heads
from workers.promote import Promoter
from workers.push import Pusher
from workers.refit import Refitter
from workers.rollout import Rollout


class Bell:
    """Keeps for whom it was rung."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, queue: str) -> bool:
        self.rung.append(queue)
        return True


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, label_studio: FakeLabelStudio) -> Settings:
    return Settings(
        MODEL_DIR=tmp_path,
        CLAPBOARD_MODEL="counting",
        LABEL_STUDIO_URL=label_studio.url,
        LABEL_STUDIO_API_KEY=TOKEN,
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings)
    store.catalog.announce_encoder(Encoder("counting", "0123456789abcdef", "float32", 4, 10.0))
    yield store
    store.close()


@pytest.fixture
def bell() -> Bell:
    return Bell()


def make_chores(settings: Settings, store: Store, client: LabelStudioClient | None, bell: Bell) -> Chores:
    encoders = EncoderPool(CountingEncoder(), no_checkpoint, capacity=4)  # type: ignore[arg-type]
    heads = Heads(store)
    pusher = Pusher(store, client, lease_s=settings.job_lease_s) if client else None
    rollout = Rollout(settings, store, encoders, heads, bell, client, pusher)
    return Chores(
        settings,
        store,
        client,
        bell,
        Refitter(settings, store, encoders, heads, rollout),
        Promoter(settings, store, encoders, rollout),
        Finetuner(settings, store, threading.Event()),
    )


@pytest.fixture
def chores(settings: Settings, store: Store, bell: Bell) -> Iterator[Chores]:
    with LabelStudioClient(settings, max_retries=0) as client:
        yield make_chores(settings, store, client, bell)


def claimed(store: Store, queue: str, request: JobRequest) -> Job:
    store.jobs.add(queue, [request])
    (job,) = store.jobs.claim("test", queue, 1)
    return job


def test_prelabel_queues_the_projects_tasks_and_says_how_many(
    chores: Chores, store: Store, bell: Bell, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, *({"id": n, "data": {"audio": f"https://host.example/{n}.wav"}} for n in (1, 2, 3)))
    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    chores.run(job)
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.error) == (State.DONE, "3 tasks queued, 0 had their prediction.")
    assert bell.rung == [BATCH]
    queued = store.jobs.claim("test", BATCH, 10)
    assert sorted((one.kind, one.task, one.push) for one in queued) == [("predict", n, True) for n in (1, 2, 3)]


def test_tasks_that_came_while_it_ran_are_looked_for_again(
    settings: Settings, store: Store, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, {"id": 1, "data": {"audio": "https://host.example/1.wav"}})

    class LateImport(Bell):
        """While the job's own tasks are being queued, others are imported: too late for its listing."""

        def ring(self, queue: str) -> bool:
            if not self.rung:
                label_studio.add_tasks(7, {"id": 2, "data": {"audio": "https://host.example/2.wav"}})
                store.inbox.append("TASKS_CREATED", 7, {"action": "TASKS_CREATED"})
                assert store.jobs.add(BATCH, [JobRequest("prelabel", 7)]) == [job.id]
            return super().ring(queue)

    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    bell = LateImport()
    with LabelStudioClient(settings, max_retries=0) as client:
        chores = make_chores(settings, store, client, bell)
        chores.run(job)
        assert store.jobs.get(job.id).state == State.DONE
        (again,) = (one for one in store.jobs.claim("test", BATCH, 10) if one.kind == "prelabel")
        assert bell.rung == [BATCH, BATCH]
        chores.run(again)
    assert {one.task for one in store.jobs.newest(project=7) if one.kind == "predict"} == {1, 2}
    assert all(one.kind == "predict" for one in store.jobs.claim("test", BATCH, 10))


def test_train_without_any_label_fails_and_says_what_to_do(chores: Chores, store: Store) -> None:
    store.catalog.put_project(7, CHOICES, "v1")
    store.catalog.set_connected(7)
    job = claimed(store, TRAIN, JobRequest("train", 7))
    chores.run(job)
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.error_code) == (State.FAILED, "training")
    assert "has no labels to learn from yet: accept or correct some suggestions." in str(ended.error)
    assert store.versions.of_project(7) == []


def test_a_project_that_is_not_connected_is_not_trained(chores: Chores, store: Store) -> None:
    store.catalog.put_project(7, CHOICES, "v1")
    for project in (7, 8):  # known, and never heard of
        job = claimed(store, TRAIN, JobRequest("train", project))
        chores.run(job)
        ended = store.jobs.get(job.id)
        assert (ended.state, ended.error_code) == (State.FAILED, "not_found")
        assert f"`clapboard connect --project {project}`" in str(ended.error)


def test_a_project_that_is_gone_fails_its_job_with_the_reason(chores: Chores, store: Store) -> None:
    store.catalog.put_project(99, CHOICES, "v1")
    for kind, queue in (("prelabel", BATCH), ("align", LEARN), ("sync", LEARN)):
        job = claimed(store, queue, JobRequest(kind, 99))
        chores.run(job)
        ended = store.jobs.get(job.id)
        assert (ended.state, ended.error_code) == (State.FAILED, "label_studio")
        assert TOKEN not in str(ended.error)


def test_a_label_studio_that_is_away_is_tried_again(
    chores: Chores, store: Store, label_studio: FakeLabelStudio
) -> None:
    label_studio.is_down = True
    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    chores.run(job)
    assert store.jobs.get(job.id).state == State.QUEUED


def test_without_a_token_the_job_says_what_is_missing(settings: Settings, store: Store, bell: Bell) -> None:
    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    make_chores(settings, store, None, bell).run(job)
    ended = store.jobs.get(job.id)
    assert ended.state == State.FAILED
    assert "LABEL_STUDIO_API_KEY is not set" in str(ended.error)


def test_a_kind_that_nobody_knows_fails_without_harm(chores: Chores, store: Store) -> None:
    job = claimed(store, BATCH, JobRequest("dance", 7))
    chores.run(job)
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.error_code) == (State.FAILED, "settings")
    assert "run workers of one release" in str(ended.error)
