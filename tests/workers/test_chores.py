"""Chores: jobs about a whole project."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.errors import InternalError
from clapboard.jobs import BATCH, LEARN, TRAIN
from clapboard.label_studio.client import LabelStudioClient
from clapboard.serving import zero_shot_version
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import Job, JobRequest, State
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.workers.conftest import CountingEncoder, no_checkpoint
from tests.workers.learning import PROJECT, Learning
from workers.chores import PRUNE_PATIENCE, REST, Chores, Ending
from workers.encoders import EncoderPool
from workers.finetune import Finetuned, Finetuner
from workers.heads import Heads
from workers.promote import Promoter
from workers.push import Pusher
from workers.refit import Refitter
from workers.rollout import Rollout
from workers.search import Searcher


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
        Searcher(settings, store, AudioSources(settings), encoders),
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


@pytest.fixture
def slow_store(settings: Settings, store: Store) -> Iterator[Store]:
    """The store, where two seconds have passed at each look at the clock."""
    slow = Store(settings.database, clock=itertools.count(store.clock(), 2.0).__next__)
    yield slow
    slow.close()


def progress_of(settings: Settings, slow_store: Store, bell: Bell, queue: str, kind: str) -> str | None:
    """What the job said last."""
    job = claimed(slow_store, queue, JobRequest(kind, 7))
    with LabelStudioClient(settings, max_retries=0) as client:
        assert make_chores(settings, slow_store, client, bell).run(job) == Ending.DONE
    return slow_store.jobs.get(job.id).progress


def test_prelabel_says_how_far_it_is(
    settings: Settings, slow_store: Store, bell: Bell, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, *({"id": n, "data": {"audio": f"https://host.example/{n}.wav"}} for n in (1, 2, 3)))
    assert progress_of(settings, slow_store, bell, BATCH, "prelabel") == "3 of 3 tasks looked at, 0 s left"


def test_the_first_sync_says_how_far_it_is(
    settings: Settings, slow_store: Store, bell: Bell, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, {"id": 1, "data": {"audio": "https://host.example/1.wav"}})
    annotation = {"id": 5, "task": 1, "project": 7, "result": [], "updated_at": "2026-01-01T00:00:00Z"}
    label_studio.annotations = {5: annotation, 6: annotation | {"id": 6}}
    slow_store.catalog.put_project(7, CHOICES, "v1")
    assert progress_of(settings, slow_store, bell, LEARN, "sync") == "2 of 2 annotations read, 0 s left"


def test_how_each_try_ended_is_told(chores: Chores, store: Store, label_studio: FakeLabelStudio) -> None:
    label_studio.add_tasks(7)
    store.catalog.put_project(7, CHOICES, "v1")
    store.inbox.append("ANNOTATION_CREATED", 7, {"action": "ANNOTATION_CREATED"})
    assert chores.run(claimed(store, BATCH, JobRequest("prelabel", 7))) == Ending.DONE
    assert chores.run(claimed(store, LEARN, JobRequest("prune", 7))) == Ending.PUT_OFF  # somebody just annotated
    assert chores.run(claimed(store, TRAIN, JobRequest("train", 7))) == Ending.FAILED
    label_studio.is_down = True
    assert chores.run(claimed(store, LEARN, JobRequest("align", 7))) == Ending.RETRIED


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


class TestLearning:
    """`learn`, `prune`, `sync` and `train`, in a project that people label."""

    @pytest.fixture
    def learning(self, tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
        learning = Learning(tmp_path / "learning", label_studio)
        learning.introduce()
        label_studio.setup = learning.answer
        learning.add(dict.fromkeys(range(1, 7), 0) | dict.fromkeys(range(11, 17), 1))
        yield learning
        learning.close()

    def learn(self, learning: Learning) -> Job:
        """The job, run once."""
        job = learning.ask(LEARN, "learn")
        learning.chores.run(job)
        return learning.store.jobs.get(job.id)

    def test_many_labels_are_one_job_which_says_what_it_learnt(self, learning: Learning) -> None:
        asked = set()
        for task, label in ((1, "dog"), (11, "rain"), (2, "dog")):
            learning.say(task, label)
            asked.add(*learning.store.jobs.add(LEARN, [JobRequest("learn", PROJECT)]))
        (job,) = learning.store.jobs.claim("worker", LEARN, 10)
        assert asked == {job.id}
        learning.chores.run(job)
        ended = learning.store.jobs.get(job.id)
        assert (ended.state, ended.error) == (State.DONE, f"3 labels; {learning.promoted} is promoted.")

    def test_rollouts_say_how_far_they_are(self, learning: Learning, label_studio: FakeLabelStudio) -> None:
        for task, label in ((1, "dog"), (11, "rain")):
            learning.say(task, label)

        def take_long() -> None:
            learning.clock.now += 3

        label_studio.on_stored = take_long
        assert self.learn(learning).progress == "12 of 12 tasks gone through, 0 s left"
        learning.store.jobs.add(LEARN, [JobRequest("promote", PROJECT, model_version=learning.zero_shot)])
        (promote,) = (one for one in learning.store.jobs.claim("w", LEARN, 10) if one.kind == "promote")
        learning.store.versions.put(zero_shot_version(learning.store, "counting", PROJECT))
        learning.chores.run(promote)
        ended = learning.store.jobs.get(promote.id)
        assert (ended.state, ended.progress) == (State.DONE, "12 of 12 tasks gone through, 0 s left")

    def test_a_label_given_while_it_ran_is_learnt_by_another_job(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        learning.say(1, "dog")
        learning.say(11, "rain")

        def late() -> None:
            label_studio.on_stored = lambda: None
            learning.say(12, "rain")
            assert learning.store.jobs.add(LEARN, [JobRequest("learn", PROJECT)]) == [job.id]

        label_studio.on_stored = late
        job = learning.ask(LEARN, "learn")
        learning.chores.run(job)
        assert learning.store.versions.get(PROJECT, learning.promoted).manifest["num_labels"] == 2
        learning.work_off(LEARN, wait_s=15)
        assert learning.store.versions.get(PROJECT, learning.promoted).manifest["num_labels"] == 3

    def test_after_a_change_label_studio_rests_and_what_was_replaced_is_pruned_later(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        def takes_its_time() -> None:
            learning.clock.now += 3

        learning.say(1, "dog")
        learning.say(11, "rain")
        label_studio.on_stored = takes_its_time
        assert self.learn(learning).state == State.DONE
        first = learning.promoted
        learning.say(2, "rain")
        rests = self.learn(learning)
        assert (rests.state, rests.progress) == (State.QUEUED, "Label Studio rests from the last change")
        assert learning.promoted == first
        learning.clock.now += REST * 3
        jobs = learning.store.jobs.claim("worker", LEARN, 10)
        assert [job.kind for job in jobs] == ["learn"]  # it isn't time to prune
        learning.chores.run(jobs[0])
        assert learning.promoted != first
        assert first in label_studio.versions(PROJECT)
        learning.clock.now += learning.settings.prune_quiet_s
        (prune,) = learning.store.jobs.claim("worker", LEARN, 10)
        learning.chores.run(prune)
        assert learning.store.jobs.get(prune.id).error == "1 versions were taken out of Label Studio."
        assert list(label_studio.versions(PROJECT)) == [learning.promoted]

    def test_pruning_waits_while_people_annotate_but_not_for_ever(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        def prune() -> Job:
            learning.clock.now += learning.settings.prune_quiet_s
            learning.say(12, "rain")  # a moment ago
            (job,) = (job for job in learning.store.jobs.claim("worker", LEARN, 10) if job.kind == "prune")
            learning.chores.run(job)
            return learning.store.jobs.get(job.id)

        for task, label in ((1, "dog"), (11, "rain"), (2, "rain")):
            learning.say(task, label)
            learning.clock.now += 10
            self.learn(learning)
        while (job := prune()).state == State.QUEUED:
            assert job.progress == "somebody is annotating"
            assert len(label_studio.versions(PROJECT)) > 1
        assert job.state == State.DONE
        assert learning.clock.now - job.created_at >= PRUNE_PATIENCE * learning.settings.prune_quiet_s
        assert list(label_studio.versions(PROJECT)) == [learning.promoted]

    def test_a_learning_that_changes_nothing_neither_rests_nor_prunes(self, learning: Learning) -> None:
        ended = self.learn(learning)
        assert (ended.state, ended.error) == (State.DONE, f"0 labels; {learning.zero_shot} is still right.")
        assert self.learn(learning).state == State.DONE
        assert learning.store.jobs.claim("worker", LEARN, 10) == []

    def test_it_comes_back_for_what_is_still_to_be_embedded(self, learning: Learning) -> None:
        learning.add({21: 0}, embedded=False)
        learning.say(1, "dog")
        learning.say(11, "rain")
        waiting = self.learn(learning)
        assert (waiting.state, waiting.attempts) == (State.QUEUED, 0)
        assert str(waiting.progress).endswith("1 tasks are still to be embedded")
        assert learning.promoted in str(waiting.progress)

    def test_sync_enters_what_no_event_told_and_has_it_learnt(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        learning.say(1, "dog")
        learning.say(11, "rain")
        lost = dict(label_studio.annotations)
        fresh = Learning(learning.settings.model_dir.parent / "fresh", label_studio, clock=learning.clock)
        fresh.introduce()
        fresh.add(dict.fromkeys(range(1, 7), 0) | dict.fromkeys(range(11, 17), 1))
        label_studio.setup = fresh.answer
        job = fresh.ask(LEARN, "sync")
        fresh.chores.run(job)
        assert fresh.store.jobs.get(job.id).state == State.DONE
        assert fresh.store.ledger.revisions(PROJECT).keys() == lost.keys()
        fresh.work_off(LEARN, wait_s=15)
        assert fresh.store.versions.get(PROJECT, fresh.promoted).manifest["num_labels"] == 2
        fresh.close()

    @pytest.mark.parametrize("promote", [True, False])
    def test_a_candidate_that_passed_is_asked_to_be_promoted_and_a_refused_one_is_not(
        self, learning: Learning, promote: bool
    ) -> None:
        class Trained:
            def run(self, _job: Job) -> Finetuned:
                return Finetuned("tuned", promote, "because")

        learning.finetuner = Trained()  # type: ignore[assignment]
        job = learning.ask(TRAIN, "train")
        learning.chores.run(job)
        assert (learning.store.jobs.get(job.id).state, learning.store.jobs.get(job.id).error) == (State.DONE, "because")
        asked = [(one.kind, one.model_version) for one in learning.store.jobs.claim("worker", LEARN, 10)]
        assert asked == ([("promote", "tuned")] if promote else [])

    def test_a_training_that_the_worker_leaves_is_queued_again_at_once(self, learning: Learning) -> None:
        class Stopped:
            def run(self, _job: Job) -> None:
                return None

        learning.finetuner = Stopped()  # type: ignore[assignment]
        learning.chores.run(learning.ask(TRAIN, "train"))
        (again,) = learning.store.jobs.claim("worker", TRAIN, 1)
        assert (again.attempts, again.progress) == (
            1,
            "the worker stopped; the next one goes on from the last epoch",
        )

    def test_a_training_whose_process_died_is_tried_again_as_often_as_any_job(self, learning: Learning) -> None:
        class Dying:
            def run(self, _job: Job) -> None:
                raise InternalError("The training process left no outcome.")

        learning.finetuner = Dying()  # type: ignore[assignment]
        learning.store.jobs.add(TRAIN, [JobRequest("train", PROJECT)])
        ended = learning.work_off(TRAIN)
        assert [job.state for job in ended] == [State.QUEUED, State.QUEUED, State.FAILED]
        assert (ended[-1].error_code, ended[-1].attempts) == ("internal", 3)
