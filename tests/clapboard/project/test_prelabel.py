"""Prelabeller: what a project's tasks lack, found in Label Studio and queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.errors import LabelConfigError, LabelStudioError, NoWorkerError
from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.project.prelabel import Prelabelled, Prelabeller
from clapboard.queue.celery_app import BATCH, PredictPayload
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import State
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest import prediction
from tests.support.annotation_events import annotation, clip, said
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
VERSION = prediction.model_version(ENCODER, parse_label_config(CHOICES))
PROJECT = 7


class Waker:
    """Keeps the queues whose workers were woken."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    def wake(self, queue: str) -> bool:
        self.woken.append(queue)
        return True


class World:
    """A Label Studio with a project, a store, and a prelabeller between them."""

    def __init__(self, folder: Path, label_studio: FakeLabelStudio) -> None:
        self.label_studio = label_studio
        self.settings = Settings(
            MODEL_DIR=folder, CLAPBOARD_MODEL="mini", LABEL_STUDIO_URL=label_studio.url, LABEL_STUDIO_API_KEY=TOKEN
        )
        self.store = Store.open(self.settings)
        self.client = LabelStudioClient(self.settings, max_retries=0)
        self.sources = AudioSources(self.settings)
        self.waker = Waker()
        self.prelabeller = Prelabeller(self.settings, self.store, self.client, self.waker)
        label_studio.tasks[PROJECT] = {}

    def add(self, *tasks: int, uri: str = "https://host.example/{}.wav") -> None:
        self.label_studio.add_tasks(PROJECT, *({"id": n, "data": {"audio": uri.format(n)}} for n in tasks))

    def run(self) -> Prelabelled:
        return self.prelabeller.run(PROJECT)

    def key(self, task: int) -> str:
        return self.sources.key(f"https://host.example/{task}.wav")

    def hold(self, *tasks: int, version: str = prediction.shown_name(VERSION)) -> None:
        """Label Studio has the tasks' predictions."""
        for task in tasks:
            self.label_studio.store({"task": task, "model_version": version, "score": 0.5, "result": []})

    def cache(self, *tasks: int) -> None:
        """The tasks' predictions were made before."""
        self.store.predictions.put_all(
            [StoredPrediction(PROJECT, n, VERSION, self.key(n), 0.5, []) for n in tasks], push=False
        )


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[World]:
    """Before any worker."""
    with FakeLabelStudio() as label_studio:
        world = World(tmp_path, label_studio)
        yield world
        world.client.close()
        world.store.close()


@pytest.fixture
def world(bare: World) -> World:
    bare.store.catalog.announce_encoder(ENCODER)
    return bare


def test_every_task_without_a_prediction_is_queued_to_be_pushed(world: World) -> None:
    world.add(1, 2, 3)
    assert world.run() == Prelabelled(VERSION, num_tasks=3, num_queued=3)
    assert world.waker.woken == [BATCH]
    jobs = world.store.jobs.claim("test", BATCH, 10)
    assert [(job.kind, job.project, job.task, job.model_version, job.push) for job in jobs] == [
        ("predict", PROJECT, task, VERSION, True) for task in (1, 2, 3)
    ]
    payload = PredictPayload.model_validate(jobs[0].payload)
    assert (payload.uri, payload.uri_key) == ("https://host.example/1.wav", world.key(1))
    assert world.store.catalog.label_config(payload.space_id) == CHOICES


def test_what_is_held_out_is_listened_to_first_and_never_pushed(world: World) -> None:
    world.store.catalog.put_project(PROJECT, CHOICES, VERSION)
    world.store.catalog.set_connected(PROJECT, 0.5)
    world.add(*range(1, 21))
    found = world.run()
    jobs = world.store.jobs.claim("test", BATCH, 100)
    aside = {task.task for page in world.store.tasks.of_project(PROJECT) for task in page if task.held_out}
    assert 0 < len(aside) < 20
    assert [job.push for job in jobs] == [False] * len(aside) + [True] * (20 - len(aside))
    assert {job.task for job in jobs if not job.push} == aside
    assert (found.num_queued, found.num_held_out) == (20 - len(aside), len(aside))
    heard = {world.key(task): Recording(f"sound {task}", 1, 1.0) for task in aside}
    other = next(job.task for job in jobs if job.push)
    world.store.embeddings.put_recordings(heard | {world.key(other): Recording(f"sound {min(aside)}", 1, 1.0)})
    for job in jobs:
        world.store.jobs.done(job)
    world.run()
    asked_again = {job.task for job in world.store.jobs.claim("test", BATCH, 100)}
    assert asked_again == set(range(1, 21)) - aside - {other}  # which has the sound of one that is set aside


def test_what_label_studio_holds_of_this_version_is_left_alone(world: World) -> None:
    world.add(1, 2, 3)
    world.hold(1)
    world.hold(2, version="older")
    assert world.run() == Prelabelled(VERSION, num_tasks=3, num_present=1, num_queued=2)


def test_what_was_computed_before_is_only_pushed(world: World) -> None:
    world.add(1, 2, 3)
    world.cache(1, 2)
    assert world.run() == Prelabelled(VERSION, num_tasks=3, num_cached=2, num_queued=1)
    assert [one.task for one in world.store.predictions.take_for_push(10, 30)] == [1, 2]


def test_run_again_it_queues_nothing_twice(world: World) -> None:
    world.add(1, 2)
    world.run()
    again = world.run()
    assert again.num_tasks == 2
    assert len(world.store.jobs.newest()) == 2
    for job in world.store.jobs.claim("test", BATCH, 10):
        found = StoredPrediction(PROJECT, job.task, VERSION, job.payload["uri_key"], 0.5, [])
        world.store.finish_with_prediction(job, found)
    world.hold(1, 2)
    assert world.run() == Prelabelled(VERSION, num_tasks=2, num_present=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"audio": "ftp://host.example/a.wav"}, "«ftp»"),
        ({"audio": ""}, "empty"),
        ({"other": "https://host.example/a.wav"}, "no “audio”"),
        ({}, "no “audio”"),
    ],
)
def test_a_task_without_usable_audio_is_counted_and_its_reason_kept(
    world: World, data: dict[str, Any], reason: str
) -> None:
    world.add(1)
    world.label_studio.add_tasks(PROJECT, {"id": 2, "data": data})
    assert world.run() == Prelabelled(VERSION, num_tasks=2, num_queued=1, num_refused=1)
    (failed,) = world.store.jobs.newest(state=State.FAILED)
    assert (failed.task, failed.queue) == (2, BATCH)
    assert reason in str(failed.error)


def test_each_run_tells_anew_which_tasks_are_refused(world: World) -> None:
    world.label_studio.add_tasks(PROJECT, {"id": 2, "data": {}})
    for _ in range(2):
        began_at = world.store.clock()
        assert world.run().num_refused == 1
        assert [job.task for job in world.store.jobs.failed_since(PROJECT, VERSION, began_at)] == [2]


def test_pages_are_told_as_they_are_done_and_none_is_skipped(world: World) -> None:
    tasks = range(1, 2501)
    world.add(*tasks)
    world.hold(*range(1, 2501, 5))
    world.cache(*range(2, 2501, 5))
    seen: list[int] = []
    found = world.prelabeller.run(PROJECT, on_page=lambda so_far: seen.append(so_far.num_tasks))
    assert seen == [1000, 2000, 2500]
    assert found == Prelabelled(VERSION, num_tasks=2500, num_present=500, num_cached=500, num_queued=1500)


def _stop_after_a_page(world: World, _: pytest.MonkeyPatch) -> None:
    def stop(so_far: Prelabelled) -> None:
        if so_far.num_tasks == 1000:
            raise KeyboardInterrupt

    world.prelabeller.run(PROJECT, on_page=stop)


def _stop_while_asking(world: World, _: pytest.MonkeyPatch) -> None:
    def break_off() -> None:
        world.label_studio.is_down = True

    world.prelabeller.run(PROJECT, on_page=lambda so_far: break_off() if so_far.num_tasks == 1000 else None)


def _stop_while_queueing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add = world.store.jobs.add

    def stop(queue: str, requests: list[Any]) -> list[int]:
        if requests[-1].task > 1000:
            add(queue, requests[:300])
            raise KeyboardInterrupt
        return add(queue, requests)

    monkeypatch.setattr(world.store.jobs, "add", stop)
    world.run()


@pytest.mark.parametrize("stop", [_stop_after_a_page, _stop_while_asking, _stop_while_queueing])
def test_interrupted_and_run_again_nothing_is_queued_twice_and_nothing_missed(
    world: World, monkeypatch: pytest.MonkeyPatch, stop: Callable[[World, pytest.MonkeyPatch], None]
) -> None:
    world.add(*range(1, 2501))
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, LabelStudioError)):
        stop(world, patch)
    world.label_studio.is_down = False
    done = world.store.jobs.claim("test", BATCH, 500)  # a worker goes on meanwhile, and pushes half of what it did
    for job in done:
        found = StoredPrediction(PROJECT, job.task, VERSION, job.payload["uri_key"], 0.5, [])
        assert world.store.finish_with_prediction(job, found)
    pushed = world.store.predictions.take_for_push(250, 60.0)
    world.hold(*(one.task for one in pushed))
    world.store.predictions.pushed(PROJECT, [one.task for one in pushed], VERSION)
    found = world.run()
    assert found == Prelabelled(VERSION, num_tasks=2500, num_present=250, num_cached=250, num_queued=2000)
    waiting = world.store.jobs.claim("test", BATCH, 2500)
    assert sorted(job.task for job in waiting) == sorted(set(range(1, 2501)) - {job.task for job in done})
    assert world.store.tasks.count(PROJECT) == (2500, 0)
    assert world.store.predictions.num_owed(PROJECT) == 250


def test_an_empty_project_is_no_work(world: World) -> None:
    assert world.run() == Prelabelled(VERSION)
    assert world.waker.woken == []


def test_a_project_that_cannot_be_predicted_says_why(world: World) -> None:
    world.label_studio.label_config = '<View><Audio name="a" value="$audio"/><TextArea name="t" toName="a"/></View>'
    with pytest.raises(LabelConfigError, match=r"project 7 gets suggestions. The TextArea “t” is left to people"):
        world.run()
    with pytest.raises(LabelStudioError, match="no project 99"):
        world.prelabeller.run(99)


def test_without_a_worker_it_says_how_to_start_one(bare: World) -> None:
    bare.add(1)
    with pytest.raises(NoWorkerError, match="start one with `clapboard worker`"):
        bare.run()
    assert bare.store.jobs.newest() == []


def test_annotated_tasks_are_embedded_without_a_suggestion(world: World) -> None:
    world.add(1, 2, 3)
    action, body = said(annotation(11, clip("dog"), task=2, project=PROJECT))
    world.store.append_event(action, PROJECT, body | {"project": {"id": PROJECT}})
    world.store.ledger.catch_up()
    result = world.run()
    assert (result.num_tasks, result.num_queued, result.num_complete) == (3, 2, 1)
    jobs = world.store.jobs.claim("worker", BATCH, 10)
    assert {job.task: job.push for job in jobs} == {1: True, 2: False, 3: True}
