"""Promoter: versions that people choose, the way back, and what is removed for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.errors import ModelError, NotFoundError, ProjectBusy
from clapboard.project.serving import zero_shot_version
from clapboard.queue.celery_app import BATCH, LEARN
from clapboard.store.jobs import JobRequest
from clapboard.store.versions import Version
from clapboard.suggest.head import ZERO_SHOT
from clapboard.suggest.prediction import shown_name
from tests.support.fake_label_studio import CHOICES, FakeLabelStudio
from tests.workers.conftest import CountingEncoder
from tests.workers.learning import PROJECT, Learning, tuned_encoder

TASKS = {1: 0, 2: 0, 11: 1, 12: 1}


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def learning(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
    learning = Learning(tmp_path, label_studio, load=tuned_encoder)
    learning.introduce()
    label_studio.setup = learning.answer
    learning.add(TASKS)
    yield learning
    learning.close()


def promote(learning: Learning, version: Version) -> None:
    """The job, and the pruning that follows from it, before anything is learnt."""
    learning.clock.now += 1
    job = learning.ask(LEARN, "promote", version.model_version)
    learning.project_jobs.run(job)
    ended = learning.store.jobs.get(job.id)
    assert ended.state == "done", ended.error
    learning.clock.now += learning.settings.prune_quiet_s
    followed = learning.store.jobs.claim("worker", LEARN, 10)
    assert {one.kind for one in followed} == {"learn", "prune"}
    for one in followed:
        if one.kind == "prune":
            learning.project_jobs.run(one)
        else:
            learning.store.jobs.done(one)


def base(learning: Learning) -> Version:
    """The base model's zero-shot, as `clapboard models rollback` names it."""
    version = zero_shot_version(learning.store, "counting", PROJECT)
    learning.store.versions.put(version)
    return version


def checkpoints(learning: Learning) -> list[int]:
    folder = learning.settings.model_dir / "models" / str(PROJECT)
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.iterdir())


def test_a_finetuned_version_predicts_every_open_task_anew_with_its_own_encoder(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    version = learning.finetuned(1, TASKS)
    promote(learning, version)
    assert learning.promoted == version.model_version
    assert label_studio.shown[PROJECT] == learning.answer() == shown_name(learning.promoted)
    assert learning.shown(version.model_version) == {1: "dog", 2: "dog", 11: "rain", 12: "rain"}
    assert learning.store.catalog.encoders()[version.encoder].version == version.encoder_version


def test_what_people_said_is_learnt_anew_on_the_encoder_that_was_promoted(learning: Learning) -> None:
    learning.say(1, "dog")
    learning.say(11, "rain")
    version = learning.finetuned(1, TASKS)
    learning.ask(LEARN, "promote", version.model_version)
    learning.store.jobs.requeue_lost(-1)
    learning.work_off(LEARN, wait_s=15)
    promoted = learning.store.versions.promoted(PROJECT)
    assert promoted is not None
    assert (promoted.encoder, promoted.manifest["num_labels"]) == (version.encoder, 2)
    assert learning.shown(promoted.model_version) == {2: "dog", 12: "rain"}


def test_until_the_new_encoder_has_embedded_the_pool_the_old_version_serves(learning: Learning) -> None:
    version = learning.finetuned(1, TASKS)
    learning.store.embeddings.forget(version.encoder_version)
    before = learning.answer()
    job = learning.ask(LEARN, "promote", version.model_version)
    learning.project_jobs.run(job)
    put_off = learning.store.jobs.get(job.id)
    assert (put_off.state, put_off.progress) == ("queued", "4 tasks are still to be embedded or pushed")
    assert learning.answer() == before
    queued = learning.store.jobs.claim("worker", BATCH, 10)
    assert {(one.payload["encoder"], one.payload["head"], one.model_version) for one in queued} == {
        (version.encoder, version.head, version.model_version)
    }
    assert [one.task for one in queued] == [1, 2, 11, 12]


def test_one_can_go_back_to_the_base_model_and_forth_again_and_label_studio_shows_it_each_time(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    first, second = base(learning), learning.finetuned(1, TASKS)
    for version in (first, second, first, second):
        promote(learning, version)
        assert learning.promoted == version.model_version
        assert label_studio.shown[PROJECT] == shown_name(version.model_version)
        assert label_studio.versions(PROJECT) == {shown_name(version.model_version): len(TASKS)}
        assert set(label_studio.count(shown_name(version.model_version), *TASKS).values()) == {1}
    assert learning.answer() == shown_name(second.model_version)


def test_a_candidate_that_the_gate_refused_can_be_promoted_by_hand(learning: Learning) -> None:
    version = learning.finetuned(1, TASKS, passed=False)
    promote(learning, version)
    assert learning.promoted == version.model_version


def test_a_version_without_its_checkpoint_or_one_that_never_was_is_one_sentence(learning: Learning) -> None:
    version = learning.finetuned(1, TASKS)
    (learning.settings.model_dir / version.encoder / "manifest.json").unlink()
    with pytest.raises(ModelError, match="its checkpoint was removed"):
        learning.promoter.run(PROJECT, version.model_version)
    with pytest.raises(NotFoundError, match=r"has no version v9: `clapboard models list --project 7` shows them"):
        learning.promoter.run(PROJECT, "v9")
    assert learning.promoted == ""


def test_under_another_label_config_its_encoder_answers_by_the_texts(learning: Learning) -> None:
    version = learning.finetuned(1, TASKS)
    learning.configure(CHOICES.replace("rain", "wind"))
    learning.promoter.run(PROJECT, version.model_version)
    promoted = learning.store.versions.promoted(PROJECT)
    assert promoted is not None
    assert (promoted.encoder, promoted.head) == (version.encoder, ZERO_SHOT)
    assert shown_name(promoted.model_version) == learning.answer()
    assert set(learning.shown(promoted.model_version).values()) <= {"dog", "wind"}


def test_the_checkpoint_in_service_the_one_before_and_the_newest_candidate_are_kept_and_no_other(
    learning: Learning,
) -> None:
    learning.say(99, "dog")
    learning.store.ledger.catch_up()
    versions = []
    for number in (1, 2, 3):
        versions.append(learning.finetuned(number, TASKS))
        promote(learning, versions[-1])
    candidates = [learning.finetuned(number, TASKS, passed=False) for number in (4, 5)]
    learning.pruner.run(PROJECT)
    assert learning.promoted == versions[2].model_version
    assert checkpoints(learning) == [2, 3, 5]
    kept = {one.encoder_version: learning.store.embeddings.count(one.encoder_version) for one in versions + candidates}
    assert list(kept.values()) == [0, 4, 4, 0, 4]
    assert learning.store.embeddings.count(CountingEncoder().identity.version) == 4  # the base model's
    assert learning.store.ledger.num_entries(PROJECT) == 1
    promote(learning, versions[1])
    assert learning.promoted == versions[1].model_version


def test_heads_that_a_later_one_replaced_are_forgotten_with_their_versions(learning: Learning) -> None:
    names = []
    learning.say(1, "dog")
    for task, label in ((11, "rain"), (2, "rain"), (12, "dog")):
        learning.say(task, label)
        names.append(learning.refitter.run(PROJECT).model_version)
        learning.clock.now += 1
    assert len(set(names)) == 3
    first = learning.store.versions.get(PROJECT, names[0])
    learning.pruner.run(PROJECT)
    left = [version.model_version for version in learning.store.versions.of_project(PROJECT)]
    assert left == [learning.zero_shot, names[-1]]  # to which the heads on trial may be rolled back
    with pytest.raises(NotFoundError):
        learning.store.versions.head(first.encoder_version, first.space_id, first.head)


def choose(learning: Learning, version: str) -> None:
    """`clapboard models promote`, or `rollback`, and all that comes after it."""
    learning.store.versions.pin(PROJECT, version)
    learning.store.jobs.add(LEARN, [JobRequest("promote", PROJECT, model_version=version)])
    learning.work_off(LEARN)


def learn(learning: Learning) -> str:
    """What came of a `learn` job, when it and all that follows is done."""
    (job,) = learning.store.jobs.add(LEARN, [JobRequest("learn", PROJECT)])
    learning.work_off(LEARN)
    return str(learning.store.jobs.get(job).error)


class TestPinned:
    """A version that somebody chose stays until people say something new, or until somebody lets go of it."""

    @pytest.fixture
    def head(self, learning: Learning) -> str:
        """A head that people's labels made, in service; afterwards somebody goes back to zero-shot."""
        for task, label in ((1, "dog"), (11, "rain")):
            learning.say(task, label)
        learn(learning)
        head = learning.promoted
        choose(learning, base(learning).model_version)
        return head

    def test_learning_again_does_not_replace_a_pinned_version(
        self, learning: Learning, label_studio: FakeLabelStudio, head: str
    ) -> None:
        assert learning.zero_shot == learning.promoted == learning.store.versions.pinned(PROJECT) != head
        assert learn(learning) == (
            f"{learning.zero_shot} is pinned: learning goes on with the next label, or after `clapboard models unpin`."
        )
        assert learning.promoted == learning.zero_shot
        assert label_studio.shown[PROJECT] == shown_name(learning.zero_shot)
        assert label_studio.count(shown_name(learning.zero_shot), 2, 12) == {2: 1, 12: 1}

    def test_a_pin_ends_with_the_next_label(self, learning: Learning, head: str) -> None:
        learning.say(2, "rain")
        learn(learning)
        assert learning.promoted not in {head, learning.zero_shot}
        assert learning.store.versions.pinned(PROJECT) == ""

    def test_a_label_that_is_withdrawn_is_nothing_new(self, learning: Learning, head: str) -> None:
        learning.withdraw(1)
        learn(learning)
        assert learning.promoted == learning.store.versions.pinned(PROJECT) == learning.zero_shot

    def test_unpinning_brings_back_what_was_learnt(self, learning: Learning, head: str) -> None:
        learning.store.versions.unpin(PROJECT)
        learn(learning)
        assert learning.promoted == head

    def test_a_candidate_that_passed_waits_beside_a_pinned_version(self, learning: Learning, head: str) -> None:
        passed = learning.finetuned(1, TASKS)
        job = learning.ask(LEARN, "promote", passed.model_version)  # as it was queued before somebody chose
        learning.project_jobs.run(job)
        assert learning.promoted == learning.zero_shot
        assert str(learning.store.jobs.get(job.id).error).startswith(f"{passed.model_version} is not promoted: ")

    def test_the_last_choice_wins(self, learning: Learning, head: str) -> None:
        first, second = learning.finetuned(1, TASKS), learning.finetuned(2, TASKS)
        for version in (first, second):
            learning.store.versions.pin(PROJECT, version.model_version)
            learning.store.jobs.add(LEARN, [JobRequest("promote", PROJECT, model_version=version.model_version)])
        learning.work_off(LEARN)
        assert learning.promoted == learning.store.versions.pinned(PROJECT) == second.model_version

    def test_a_version_that_cannot_be_promoted_pins_nothing(self, learning: Learning) -> None:
        gone = learning.finetuned(1, TASKS)
        (learning.settings.model_dir / gone.encoder / "manifest.json").unlink()
        learning.say(1, "dog")
        learning.say(11, "rain")
        choose(learning, gone.model_version)
        learn(learning)
        assert learning.store.versions.get(PROJECT, learning.promoted).manifest["num_labels"] == 2

    def test_under_a_new_label_config_its_encoder_answers_and_stays(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        version = learning.finetuned(1, TASKS)
        choose(learning, version.model_version)
        learning.configure(CHOICES.replace("rain", "wind"))
        learn(learning)
        promoted = learning.store.versions.promoted(PROJECT)
        assert promoted is not None
        assert (promoted.encoder, promoted.head) == (version.encoder, ZERO_SHOT)
        assert promoted.model_version == learning.store.versions.pinned(PROJECT)
        assert label_studio.shown[PROJECT] == shown_name(promoted.model_version)
        assert label_studio.versions(PROJECT) == {shown_name(promoted.model_version): len(TASKS)}


class TestSideBySide:
    """Two processes at one project: what one of them brings, the other doesn't take away."""

    @pytest.fixture
    def other(self, learning: Learning, label_studio: FakeLabelStudio) -> Iterator[Learning]:
        """Another worker."""
        other = Learning(learning.settings.model_dir, label_studio, clock=learning.clock, load=tuned_encoder)
        yield other
        other.close()

    def test_while_a_version_is_brought_back_nobody_else_prunes(
        self, learning: Learning, other: Learning, label_studio: FakeLabelStudio
    ) -> None:
        back, tuned = base(learning), learning.finetuned(1, TASKS)
        for version in (back, tuned):
            promote(learning, version)
        prune = other.ask(LEARN, "prune")
        outcomes: list[str] = []
        label_studio.on_stored = lambda: outcomes.append(other.project_jobs.run(prune))
        choose(learning, back.model_version)
        assert outcomes
        assert set(outcomes) == {"put_off"}
        assert learning.promoted == back.model_version
        assert label_studio.shown[PROJECT] == shown_name(back.model_version)
        assert label_studio.versions(PROJECT) == {shown_name(back.model_version): len(TASKS)}

    def test_what_is_chosen_and_waits_is_not_pruned_either(
        self, learning: Learning, other: Learning, label_studio: FakeLabelStudio
    ) -> None:
        first, second = learning.finetuned(1, TASKS), learning.finetuned(2, TASKS)
        for version in (first, second):
            promote(learning, version)
        learning.add({21: 0}, embedded=False)
        job = learning.ask(LEARN, "promote", first.model_version)
        learning.project_jobs.run(job)
        assert learning.store.jobs.get(job.id).state == "queued"
        other.project_jobs.run(other.ask(LEARN, "prune"))
        assert label_studio.versions(PROJECT)[shown_name(first.model_version)] == len(TASKS)

    def test_what_label_studio_has_lost_is_brought_again_before_the_switch(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        version = learning.finetuned(1, TASKS)

        def lose() -> None:
            label_studio.on_stored = lambda: None
            label_studio.stored = [one for one in label_studio.stored if one["task"] != 2]

        label_studio.on_stored = lose
        choose(learning, version.model_version)
        assert learning.promoted == version.model_version
        assert label_studio.count(shown_name(version.model_version), *TASKS) == dict.fromkeys(TASKS, 1)

    def test_what_it_has_lost_of_the_version_in_service_comes_back_with_the_next_prune(
        self, learning: Learning, label_studio: FakeLabelStudio
    ) -> None:
        version = learning.finetuned(1, TASKS)
        promote(learning, version)
        label_studio.stored = []
        learning.project_jobs.run(learning.ask(LEARN, "prune"))
        learning.pusher.push_owed()
        assert label_studio.count(shown_name(version.model_version), *TASKS) == dict.fromkeys(TASKS, 1)

    def test_a_worker_that_stood_still_for_too_long_switches_nothing(
        self, learning: Learning, other: Learning, label_studio: FakeLabelStudio
    ) -> None:
        version = learning.finetuned(1, TASKS)
        before = learning.promoted

        def stand_still() -> None:
            learning.clock.now += 10 * learning.settings.job_lease_s
            assert learning.store.locks.take(PROJECT, "another", 1000.0)

        label_studio.on_stored = stand_still
        with pytest.raises(ProjectBusy, match="was taken over by another job"), learning.locks.hold(PROJECT):
            learning.promoter.run(PROJECT, version.model_version)
        assert learning.promoted == before
