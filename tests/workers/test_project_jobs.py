"""ProjectJobs: jobs about a whole project."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.errors import InternalError, LabelStudioUnreachable
from clapboard.feedback.renames import Rename
from clapboard.label_studio import connect as connecting
from clapboard.label_studio.checks import STORED_TITLE
from clapboard.label_studio.client import LabelStudioClient
from clapboard.project.serving import zero_shot_version
from clapboard.queue.celery_app import BATCH, LEARN, TRAIN
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import Job, JobRequest, State
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest.prediction import shown_name
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.workers.conftest import CountingEncoder, no_checkpoint
from tests.workers.learning import PROJECT, Learning
from workers import job_kinds
from workers.align import MOST_CHANGES
from workers.encoder_pool import EncoderPool
from workers.finetuner import Finetuned
from workers.head_cache import HeadCache
from workers.learning_jobs import PRUNE_PATIENCE
from workers.planner import PLANNED
from workers.project_jobs import Ending, ProjectJobs
from workers.push import Pusher
from workers.rollout import REST


class Waker:
    """Keeps the queues whose workers were woken."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    def wake(self, queue: str) -> bool:
        self.woken.append(queue)
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
def waker() -> Waker:
    return Waker()


def make_project_jobs(settings: Settings, store: Store, client: LabelStudioClient | None, waker: Waker) -> ProjectJobs:
    encoders = EncoderPool(CountingEncoder(), no_checkpoint, capacity=4)  # type: ignore[arg-type]
    heads = HeadCache(store)
    pusher = Pusher(store, client, lease_s=settings.job_lease_s) if client else None
    return job_kinds.make_project_jobs(
        settings,
        store,
        "a worker",
        sources=AudioSources(settings),
        encoders=encoders,
        heads=heads,
        waker=waker,
        client=client,
        pusher=pusher,
        stopping=threading.Event(),
    )


@pytest.fixture
def project_jobs(settings: Settings, store: Store, waker: Waker) -> Iterator[ProjectJobs]:
    with LabelStudioClient(settings, max_retries=0) as client:
        yield make_project_jobs(settings, store, client, waker)


def claimed(store: Store, queue: str, request: JobRequest) -> Job:
    store.jobs.add(queue, [request])
    (job,) = store.jobs.claim("test", queue, 1)
    return job


def test_prelabel_queues_the_projects_tasks_and_says_how_many(
    project_jobs: ProjectJobs, store: Store, waker: Waker, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, *({"id": n, "data": {"audio": f"https://host.example/{n}.wav"}} for n in (1, 2, 3)))
    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    project_jobs.run(job)
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.error) == (State.DONE, "3 tasks queued, 0 had their prediction.")
    assert waker.woken == [BATCH]
    queued = store.jobs.claim("test", BATCH, 10)
    assert sorted((one.kind, one.task, one.push) for one in queued) == [("predict", n, True) for n in (1, 2, 3)]


def test_tasks_imported_during_a_prelabel_are_found_by_another(
    settings: Settings, store: Store, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, {"id": 1, "data": {"audio": "https://host.example/1.wav"}})

    class LateImport(Waker):
        """While the job's own tasks are being queued, others are imported: too late for its listing."""

        def wake(self, queue: str) -> bool:
            if not self.woken:
                label_studio.add_tasks(7, {"id": 2, "data": {"audio": "https://host.example/2.wav"}})
                store.inbox.append("TASKS_CREATED", 7, {"action": "TASKS_CREATED"})
                assert store.jobs.add(BATCH, [JobRequest("prelabel", 7)]) == [job.id]
            return super().wake(queue)

    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    waker = LateImport()
    with LabelStudioClient(settings, max_retries=0) as client:
        project_jobs = make_project_jobs(settings, store, client, waker)
        project_jobs.run(job)
        assert store.jobs.get(job.id).state == State.DONE
        (again,) = (one for one in store.jobs.claim("test", BATCH, 10) if one.kind == "prelabel")
        assert waker.woken == [BATCH, BATCH]
        project_jobs.run(again)
    assert {one.task for one in store.jobs.newest(project=7) if one.kind == "predict"} == {1, 2}
    assert all(one.kind == "predict" for one in store.jobs.claim("test", BATCH, 10))


@pytest.fixture
def slow_store(settings: Settings, store: Store) -> Iterator[Store]:
    """The store, where two seconds have passed at each look at the clock."""
    slow = Store(settings.database, clock=itertools.count(store.clock(), 2.0).__next__)
    yield slow
    slow.close()


def progress_of(settings: Settings, slow_store: Store, waker: Waker, queue: str, kind: str) -> str | None:
    """What the job said last."""
    job = claimed(slow_store, queue, JobRequest(kind, 7))
    with LabelStudioClient(settings, max_retries=0) as client:
        assert make_project_jobs(settings, slow_store, client, waker).run(job) == Ending.DONE
    return slow_store.jobs.get(job.id).progress


def test_prelabel_says_how_far_it_is(
    settings: Settings, slow_store: Store, waker: Waker, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, *({"id": n, "data": {"audio": f"https://host.example/{n}.wav"}} for n in (1, 2, 3)))
    assert progress_of(settings, slow_store, waker, BATCH, "prelabel") == "3 of 3 tasks looked at, 0 s left"


def test_the_first_sync_says_how_far_it_is(
    settings: Settings, slow_store: Store, waker: Waker, label_studio: FakeLabelStudio
) -> None:
    label_studio.add_tasks(7, {"id": 1, "data": {"audio": "https://host.example/1.wav"}})
    annotation = {"id": 5, "task": 1, "project": 7, "result": [], "updated_at": "2026-01-01T00:00:00Z"}
    label_studio.annotations = {5: annotation, 6: annotation | {"id": 6}}
    slow_store.catalog.put_project(7, CHOICES, "v1")
    assert progress_of(settings, slow_store, waker, LEARN, "sync") == "2 of 2 annotations read, 0 s left"


def test_run_returns_how_each_try_ended(project_jobs: ProjectJobs, store: Store, label_studio: FakeLabelStudio) -> None:
    label_studio.add_tasks(7)
    store.catalog.put_project(7, CHOICES, "v1")
    store.inbox.append("ANNOTATION_CREATED", 7, {"action": "ANNOTATION_CREATED"})
    assert project_jobs.run(claimed(store, BATCH, JobRequest("prelabel", 7))) == Ending.DONE
    assert project_jobs.run(claimed(store, LEARN, JobRequest("prune", 7))) == Ending.PUT_OFF  # somebody just annotated
    assert project_jobs.run(claimed(store, TRAIN, JobRequest("train", 7))) == Ending.FAILED
    label_studio.is_down = True
    assert project_jobs.run(claimed(store, LEARN, JobRequest("align", 7))) == Ending.RETRIED


def test_train_without_any_label_fails_and_says_what_to_do(project_jobs: ProjectJobs, store: Store) -> None:
    store.catalog.put_project(7, CHOICES, "v1")
    store.catalog.set_connected(7)
    job = claimed(store, TRAIN, JobRequest("train", 7))
    project_jobs.run(job)
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.error_code) == (State.FAILED, "training")
    assert "has no labels to learn from yet: accept or correct some suggestions." in str(ended.error)
    assert store.versions.of_project(7) == []


def test_a_project_that_is_not_connected_is_not_trained(project_jobs: ProjectJobs, store: Store) -> None:
    store.catalog.put_project(7, CHOICES, "v1")
    for project in (7, 8):  # known, and never heard of
        job = claimed(store, TRAIN, JobRequest("train", project))
        project_jobs.run(job)
        ended = store.jobs.get(job.id)
        assert (ended.state, ended.error_code) == (State.FAILED, "not_found")
        assert f"`clapboard connect --project {project}`" in str(ended.error)


def test_a_project_that_is_gone_fails_its_job_with_the_reason(project_jobs: ProjectJobs, store: Store) -> None:
    store.catalog.put_project(99, CHOICES, "v1")
    for kind, queue in (("prelabel", BATCH), ("align", LEARN), ("sync", LEARN)):
        job = claimed(store, queue, JobRequest(kind, 99))
        project_jobs.run(job)
        ended = store.jobs.get(job.id)
        assert (ended.state, ended.error_code) == (State.FAILED, "label_studio")
        assert TOKEN not in str(ended.error)


def test_a_label_studio_that_is_away_is_tried_again(
    project_jobs: ProjectJobs, store: Store, label_studio: FakeLabelStudio
) -> None:
    label_studio.is_down = True
    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    project_jobs.run(job)
    assert store.jobs.get(job.id).state == State.QUEUED


def test_without_a_token_the_job_says_what_is_missing(settings: Settings, store: Store, waker: Waker) -> None:
    job = claimed(store, BATCH, JobRequest("prelabel", 7))
    make_project_jobs(settings, store, None, waker).run(job)
    ended = store.jobs.get(job.id)
    assert ended.state == State.FAILED
    assert "LABEL_STUDIO_API_KEY is not set" in str(ended.error)


def test_a_kind_that_nobody_knows_fails_without_harm(project_jobs: ProjectJobs, store: Store) -> None:
    job = claimed(store, BATCH, JobRequest("dance", 7))
    project_jobs.run(job)
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.error_code) == (State.FAILED, "settings")
    assert "run workers of one release" in str(ended.error)


class TestAligning:
    """`align`, in a connected project whose suggestions are all computed."""

    @pytest.fixture
    def learning(self, tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
        learning = Learning(tmp_path / "learning", label_studio)
        learning.introduce()
        label_studio.setup = learning.answer
        learning.add({1: 0, 2: 1})
        yield learning
        learning.close()

    def predict(self, learning: Learning, *tasks: int) -> None:
        """Have the tasks' suggestions computed and owed."""
        known = learning.store.tasks.get(PROJECT, tasks).values()
        version = learning.zero_shot
        found = [StoredPrediction(PROJECT, task.task, version, task.uri_key, 0.5, []) for task in known]
        learning.store.predictions.put_all(found, push=True)

    def look(self, learning: Learning, job: Job, wait_s: float = 10.0) -> Job:
        """The job, once it is claimed again."""
        learning.clock.now += wait_s
        (again,) = learning.store.jobs.claim("worker", LEARN, 10)
        assert again.id == job.id
        learning.project_jobs.run(again)
        return learning.store.jobs.get(job.id)

    def title(self, label_studio: FakeLabelStudio) -> str:
        return str(label_studio.backends[PROJECT]["title"])

    def test_what_was_changed_is_looked_at_again_until_label_studio_keeps_it(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        self.predict(learning, 1, 2)
        learning.pusher.push_owed()
        job = learning.ask(LEARN, "align")
        learning.project_jobs.run(job)
        assert self.title(label_studio) == STORED_TITLE
        waiting = learning.store.jobs.get(job.id)
        assert (waiting.state, waiting.progress) == (
            State.QUEUED,
            "Label Studio was changed, and will be checked once more",
        )
        label_studio.backends[PROJECT]["title"] = shown_name(
            learning.zero_shot
        )  # by somebody whose page was read before
        assert self.look(learning, job).state == State.QUEUED
        assert self.title(label_studio) == STORED_TITLE
        ended = self.look(learning, job)
        assert (ended.state, ended.error) == (
            State.DONE,
            f"Label Studio's versions are {shown_name(learning.zero_shot)}; 0 tasks get their suggestion when opened.",
        )

    def test_what_is_undone_each_time_is_told_and_left(self, learning: Learning, label_studio: FakeLabelStudio) -> None:
        self.predict(learning, 1, 2)
        learning.pusher.push_owed()
        job = learning.ask(LEARN, "align")
        learning.project_jobs.run(job)
        for _ in range(MOST_CHANGES - 1):
            label_studio.backends[PROJECT]["title"] = shown_name(learning.zero_shot)
            ended = self.look(learning, job, 100)
        assert (ended.state, str(ended.error).partition(":")[0]) == (
            State.DONE,
            f"Label Studio was made to show {shown_name(learning.zero_shot)} 4 times, and each time something undid it",
        )

    def test_a_title_that_does_not_last_the_request_is_set_again_at_once(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        def set_back(backend: dict[str, Any]) -> None:
            label_studio.on_backend_set = lambda _backend: None
            backend["title"] = shown_name(learning.zero_shot)

        self.predict(learning, 1, 2)
        learning.pusher.push_owed()
        label_studio.on_backend_set = set_back
        learning.project_jobs.run(learning.ask(LEARN, "align"))
        assert self.title(label_studio) == STORED_TITLE

    def test_a_backend_that_is_too_busy_to_say_that_it_is_up_is_tried_again(
        self, learning: Learning, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connecting, "PAUSE_S", 0.0)
        self.predict(learning, 1, 2)
        learning.pusher.push_owed()
        label_studio.num_unheard = connecting.TRIES
        job = learning.ask(LEARN, "align")
        assert learning.project_jobs.run(job) == Ending.RETRIED
        assert "can't reach the backend" in str(learning.store.jobs.get(job.id).error)
        self.look(learning, job)
        assert self.title(label_studio) == STORED_TITLE

    def test_a_label_studio_that_goes_away_while_it_is_asked_why_is_tried_again(
        self, learning: Learning, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def go_away(*_: str) -> str:
            raise LabelStudioUnreachable("Nothing answers.")

        self.predict(learning, 1, 2)
        learning.pusher.push_owed()
        label_studio.num_unheard = 1
        monkeypatch.setattr(learning.client, "why_refused", go_away)
        assert learning.project_jobs.run(learning.ask(LEARN, "align")) == Ending.RETRIED

    def test_one_that_is_asked_for_while_it_runs_is_done_again(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        job = learning.ask(LEARN, "align")

        def everything_comes(told: Job, outcome: str | None = None) -> None:
            """After it has looked, and before it is done."""
            monkey.undo()
            self.predict(learning, 1, 2)
            learning.pusher.push_owed()
            assert learning.store.jobs.add(LEARN, [JobRequest("align", PROJECT)]) == [job.id]
            learning.store.jobs.done(told, outcome)

        with pytest.MonkeyPatch.context() as monkey:
            monkey.setattr(learning.store.jobs, "done", everything_comes)
            learning.project_jobs.run(job)
        assert learning.store.jobs.get(job.id).state == State.DONE
        assert self.title(label_studio) == shown_name(learning.zero_shot)
        learning.work_off(LEARN, wait_s=10)
        assert self.title(label_studio) == STORED_TITLE

    def test_while_a_new_task_has_no_suggestion_whoever_opens_it_is_answered(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        """Even if another job changes the project at first, and if others were on their way before."""
        self.predict(learning, 1, 2)
        learning.pusher.push_owed()
        learning.project_jobs.run(job := learning.ask(LEARN, "align"))
        assert self.title(label_studio) == STORED_TITLE
        learning.add({3: 0})
        self.predict(learning, 3)
        with learning.locks.hold(PROJECT):
            assert self.look(learning, job).progress.startswith("Project 7 is being changed")
        assert self.look(learning, job).progress == "1 task is still to be embedded or pushed"
        assert self.title(label_studio) == shown_name(learning.zero_shot)
        num_asked = len(label_studio.asked)
        self.look(learning, job)  # which sees whether it was kept
        assert len(label_studio.asked) > num_asked
        num_asked = len(label_studio.asked)
        self.look(learning, job)
        assert len(label_studio.asked) == num_asked  # nothing is to be changed before all have come

        label_studio.backends[PROJECT]["title"] = STORED_TITLE  # more are imported, of a project that was stored
        learning.add({4: 1})
        self.predict(learning, 4)
        self.look(learning, job)
        assert self.title(label_studio) == shown_name(learning.zero_shot)
        learning.pusher.push_owed()
        self.look(learning, job)
        assert self.title(label_studio) == STORED_TITLE


class Untrained:
    """A finetuning that takes no time."""

    def __init__(self, *, promote: bool = False) -> None:
        self.promote = promote

    def run(self, _job: Job) -> Finetuned:
        return Finetuned("tuned", self.promote, "Promoted." if self.promote else "Not promoted: it learnt nothing.")


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
        learning.project_jobs.run(job)
        return learning.store.jobs.get(job.id)

    def test_many_labels_are_one_job_which_says_what_it_learnt(self, learning: Learning) -> None:
        asked = set()
        for task, label in ((1, "dog"), (11, "rain"), (2, "dog")):
            learning.say(task, label)
            asked.add(*learning.store.jobs.add(LEARN, [JobRequest("learn", PROJECT)]))
        (job,) = learning.store.jobs.claim("worker", LEARN, 10)
        assert asked == {job.id}
        learning.project_jobs.run(job)
        ended = learning.store.jobs.get(job.id)
        assert (ended.state, ended.error) == (State.DONE, f"3 labels; {learning.promoted} is promoted.")

    def test_the_outcome_names_what_is_left_out_and_renamed_labels_are_learnt(self, learning: Learning) -> None:
        for task, label in ((1, "dog"), (11, "rain"), (2, "dog bark"), (3, "dog bark"), (4, "dog")):
            learning.say(task, label)
        learning.say(4, "rain", by=2)
        told = str(self.learn(learning).error)
        assert told.startswith("2 labels; ")
        assert told.endswith(
            "Left out of learning: 1 task without a majority for “clip”; 2 tasks labelled "
            "“dog bark”, which the label config doesn't have (any more)."
        )
        learning.store.renames.put(PROJECT, Rename("clip", "dog bark", "clip", "dog"))
        learning.clock.now += 100
        assert str(self.learn(learning).error).startswith("4 labels; ")

    def test_a_planned_finetuning_is_skipped_where_nothing_is_new(self, learning: Learning) -> None:
        def planned() -> str:
            learning.clock.now += 100
            learning.store.jobs.add(TRAIN, [JobRequest("train", PROJECT, payload=PLANNED)])
            (job,) = learning.work_off(TRAIN)
            assert job.state == State.DONE
            return str(job.error)

        learning.finetuner = Untrained()  # type: ignore[assignment]
        assert planned() == "There are no labels to learn from yet."
        learning.say(1, "dog")
        assert planned() == "Not promoted: it learnt nothing."
        number = learning.store.jobs.newest()[0].id
        spared = f"Nobody has labelled anything since the finetuning of job {number}: there is nothing new."
        assert planned() == spared
        learning.store.jobs.add(TRAIN, [JobRequest("train", PROJECT)])  # somebody presses a key
        assert [job.error for job in learning.work_off(TRAIN)] == ["Not promoted: it learnt nothing."]
        learning.say(11, "rain")
        assert planned() == "Not promoted: it learnt nothing."

    def test_a_candidate_that_passed_beside_a_pinned_version_waits(self, learning: Learning) -> None:
        learning.store.versions.put(zero_shot_version(learning.store, "counting", PROJECT))
        learning.store.versions.pin(PROJECT, learning.zero_shot)
        learning.finetuner = Untrained(promote=True)  # type: ignore[assignment]
        learning.store.jobs.add(TRAIN, [JobRequest("train", PROJECT)])
        (job,) = learning.work_off(TRAIN)
        assert f"But {learning.zero_shot} is pinned, so it waits" in str(job.error)
        assert learning.jobs(LEARN) == []

    def test_annotators_get_their_names_from_label_studio(self, learning: Learning) -> None:
        learning.say(1, "dog")
        learning.store.ledger.catch_up()
        learning.project_jobs.run(learning.ask(LEARN, "sync"))
        assert learning.store.ledger.annotators() == {1: "Ann Lee"}
        assert learning.store.ledger.unnamed(PROJECT) == set()

    def test_rollouts_say_how_far_they_are(self, learning: Learning, label_studio: FakeLabelStudio) -> None:
        for task, label in ((1, "dog"), (11, "rain")):
            learning.say(task, label)

        def take_long() -> None:
            learning.clock.now += 3

        label_studio.on_stored = take_long
        assert self.learn(learning).progress == "12 of 12 tasks gone through, 0 s left"

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
        learning.project_jobs.run(job)
        assert learning.store.versions.get(PROJECT, learning.promoted).manifest["num_labels"] == 2
        learning.work_off(LEARN, wait_s=15)
        assert learning.store.versions.get(PROJECT, learning.promoted).manifest["num_labels"] == 3

    def test_label_studio_rests_after_all_tasks_were_predicted_whichever_worker_learns_next(
        self, learning: Learning, label_studio: FakeLabelStudio, tmp_path: Path
    ) -> None:
        def takes_its_time() -> None:
            learning.clock.now += 3

        learning.say(1, "dog")
        learning.say(11, "rain")
        label_studio.on_stored = takes_its_time
        assert self.learn(learning).state == State.DONE
        first = learning.promoted
        learning.say(2, "rain")
        other = Learning(learning.settings.model_dir, label_studio, clock=learning.clock)
        rests = self.learn(other)
        assert (rests.state, rests.progress) == (State.QUEUED, "Label Studio rests from the last change")
        assert other.promoted == first
        learning.clock.now += REST * 3
        other.work_off(LEARN, wait_s=5)
        assert other.promoted != first
        other.close()

    def test_a_version_that_was_replaced_while_a_pruning_ran_is_pruned_by_another_job(
        self, learning: Learning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for task, label in ((1, "dog"), (11, "rain")):
            learning.say(task, label)
        assert self.learn(learning).state == State.DONE
        learning.clock.now += learning.settings.prune_quiet_s + REST
        (prune,) = learning.store.jobs.claim("worker", LEARN, 10)
        replaced = learning.promoted
        ends = learning.store.jobs.done

        def too_late(job: Job, outcome: str | None = None) -> None:
            """Another worker takes up a new version once this job has looked, and before it is done."""
            monkeypatch.setattr(learning.store.jobs, "done", ends)
            learning.say(2, "rain")
            learning.refitter.run(PROJECT)
            ends(job, outcome)

        monkeypatch.setattr(learning.store.jobs, "done", too_late)
        learning.project_jobs.run(prune)
        assert learning.promoted != replaced
        learning.clock.now += learning.settings.prune_quiet_s + REST
        assert "prune" in [job.kind for job in learning.store.jobs.claim("worker", LEARN, 10)]

    def test_pruning_waits_while_people_annotate_but_not_for_ever(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        def prune() -> Job:
            learning.clock.now += learning.settings.prune_quiet_s
            learning.say(12, "rain")  # a moment ago
            (job,) = (job for job in learning.store.jobs.claim("worker", LEARN, 10) if job.kind == "prune")
            learning.project_jobs.run(job)
            return learning.store.jobs.get(job.id)

        learning.store.versions.put(zero_shot_version(learning.store, "counting", PROJECT))
        old = {"task": 2, "model_version": learning.zero_shot, "score": 0.5, "result": []}
        label_studio.store(old)  # as earlier releases did, under the version's own name
        for task, label in ((1, "dog"), (11, "rain"), (2, "rain")):
            learning.say(task, label)
            learning.clock.now += 10
            self.learn(learning)
        while (job := prune()).state == State.QUEUED:
            assert job.progress == "somebody is annotating"
            assert len(label_studio.versions(PROJECT)) > 1
        assert job.state == State.DONE
        assert learning.clock.now - job.created_at >= PRUNE_PATIENCE * learning.settings.prune_quiet_s
        assert list(label_studio.versions(PROJECT)) == [shown_name(learning.promoted)]

    def test_a_learning_that_changes_nothing_neither_rests_nor_prunes(self, learning: Learning) -> None:
        ended = self.learn(learning)
        assert (ended.state, ended.error) == (State.DONE, f"0 labels; {learning.zero_shot} is still right.")
        assert self.learn(learning).state == State.DONE
        assert learning.store.jobs.claim("worker", LEARN, 10) == []

    def test_learning_is_put_off_while_tasks_are_still_to_be_embedded(self, learning: Learning) -> None:
        learning.add({21: 0}, embedded=False)
        learning.say(1, "dog")
        learning.say(11, "rain")
        waiting = self.learn(learning)
        assert (waiting.state, waiting.attempts) == (State.QUEUED, 0)
        assert str(waiting.progress).endswith("1 task is still to be embedded")
        assert learning.promoted in str(waiting.progress)

    def test_sync_enters_annotations_without_an_event_and_has_them_learnt(
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
        fresh.project_jobs.run(job)
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
        learning.project_jobs.run(job)
        assert (learning.store.jobs.get(job.id).state, learning.store.jobs.get(job.id).error) == (State.DONE, "because")
        asked = [(one.kind, one.model_version) for one in learning.store.jobs.claim("worker", LEARN, 10)]
        assert asked == ([("promote", "tuned")] if promote else [])

    def test_a_training_that_the_worker_leaves_is_queued_again_at_once(self, learning: Learning) -> None:
        class Stopped:
            def run(self, _job: Job) -> None:
                return None

        learning.finetuner = Stopped()  # type: ignore[assignment]
        learning.project_jobs.run(learning.ask(TRAIN, "train"))
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
