"""What is said to whoever asks for a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from clapboard.errors import TrainingError
from clapboard.project.training_request import RequestedTraining, request_training
from clapboard.queue.celery_app import TRAIN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import State
from tests.support.fake_label_studio import CHOICES
from tests.support.labelled_project import add_labels

SETTINGS = Settings()
WHERE = "`clapboard jobs` shows its progress, `clapboard models list --project 7` its result."


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store("sqlite://")
    yield store
    store.close()


def ask(store: Store) -> RequestedTraining:
    return request_training(SETTINGS, store, 7)


def test_what_it_will_learn_from_and_where_the_verdict_will_be(store: Store) -> None:
    store.catalog.worker_alive("a worker", "mini", "cpu", "learn,train")
    add_labels(store, 7, {"dog": 13, "rain": 9}, num_aside=3)
    requested = ask(store)
    assert requested.message == (
        "Job 1 finetunes project 7 on 19 labelled tasks with 2 labels; the rarest that counts has 9 clips. "
        f"3 labelled held-out tasks will judge the result. {WHERE}"
    )
    assert requested.job == 1
    (job,) = store.jobs.newest()
    assert (job.kind, job.queue, job.state) == ("train", TRAIN, State.QUEUED)
    assert ask(store) == requested


def test_without_a_worker_that_trains_and_without_a_judge(store: Store) -> None:
    store.catalog.worker_alive("a worker", "mini", "cpu", "interactive,learn")
    add_labels(store, 7, {"dog": 8, "rain": 8})
    message = ask(store).message
    assert message.startswith("It waits because no training worker is alive: start one with `clapboard worker --queues")
    assert "No held-out task has a label" in message


def test_one_that_runs_tells_how_far_it_is(store: Store) -> None:
    add_labels(store, 7, {"dog": 8, "rain": 8})
    ask(store)
    (job,) = store.jobs.claim("a worker", TRAIN, 1)
    assert ask(store) == RequestedTraining(job.id, f"Job 1 is already training (it has just begun). {WHERE}")
    store.jobs.report(job, "epoch 3 of at most 40, 60 s left at most")
    assert "(epoch 3 of at most 40, 60 s left at most)" in ask(store).message
    assert len(store.jobs.newest()) == 1


@pytest.mark.parametrize(
    ("num_clips", "told"),
    [
        ({}, "There are no labels to learn from yet: label at least 8 clips of each of two labels"),
        ({"dog": 20}, "There are too few labels to learn from (“dog” 20)"),
        ({"dog": 20, "rain": 7}, "There are too few labels to learn from (“dog” 20, “rain” 7)"),
    ],
)
def test_too_few_labels_are_a_refusal_that_is_kept(store: Store, num_clips: Mapping[str, int], told: str) -> None:
    add_labels(store, 7, num_clips)
    for _ in range(2):
        requested = ask(store)
        assert requested.job is None
        assert requested.message.startswith(f"Nothing is started. {told}")
    (job,) = store.jobs.newest()
    assert (job.state, job.error_code) == (State.FAILED, "training")
    assert str(job.error).startswith(told)


def test_a_refused_training_does_not_count_as_failed_but_one_that_a_worker_ran_does(store: Store) -> None:
    add_labels(store, 7, {"dog": 20})
    assert ask(store).job is None
    assert store.jobs.failures() == {}
    add_labels(store, 8, {"dog": 8, "rain": 8})
    request_training(SETTINGS, store, 8)
    (job,) = store.jobs.claim("a worker", TRAIN, 1)
    store.jobs.fail(job, TrainingError("The loss isn't a number."))
    assert store.jobs.failures() == {"training": 1}


def test_tasks_that_are_held_out_are_not_learnt_from(store: Store) -> None:
    add_labels(store, 7, {"dog": 8, "rain": 8}, num_aside=1)
    assert "“rain” 8, “dog” 7" in ask(store).message


def test_of_labels_that_do_not_exclude_each_other_not_having_one_counts_too(store: Store) -> None:
    several = CHOICES.replace('toName="audio">', 'toName="audio" choice="multiple">')
    add_labels(store, 7, {"dog": 20}, label_config=several)
    assert ask(store).job is None
    add_labels(store, 8, {"dog": 8, "rain": 8}, label_config=several)
    assert request_training(SETTINGS, store, 8).job is not None


def test_a_project_that_is_unknown_or_gets_no_suggestions(store: Store) -> None:
    assert "run `clapboard connect --project 7`" in ask(store).message
    store.catalog.put_project(7, CHOICES, "v1")
    assert "is not connected: run `clapboard connect --project 7`" in ask(store).message
    store.catalog.set_connected(7)
    store.catalog.put_project(7, '<View><Audio name="a" value="$a"/><Rating name="r" toName="a"/></View>', "v1")
    assert 'Add Choices or Labels with toName="a"' in ask(store).message
    store.catalog.put_project(7, "<View>", "v1")
    assert "well-formed" in ask(store).message
    assert {job.state for job in store.jobs.newest()} == {State.FAILED}
