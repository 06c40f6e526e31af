"""`clapboard train`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clapboard.errors import NotFoundError, NoWorkerError, TrainingError
from clapboard.queue.celery_app import TRAIN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.versions import Version
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.labelled_project import add_labels

PROJECT = 7


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that knows the project, and enough labels of it."""
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    add_labels(store, PROJECT, {"dog": 8, "rain": 8})
    yield store
    store.close()


def test_pressed_twice_it_is_one_job(clapboard: Clapboard, store: Store) -> None:
    told = [lines(clapboard("train", "--project", "7", "--no-wait", "--json"))[0]["job"] for _ in range(2)]
    assert told[0] == told[1]
    assert store.jobs.get(told[0]).queue == TRAIN


def test_it_says_what_it_learns_from_or_why_nothing_is_started(clapboard: Clapboard, store: Store) -> None:
    assert "on 16 labelled tasks with 2 labels" in clapboard("train", "-p", "7", "--no-wait").stderr
    add_labels(store, 8, {"dog": 2})
    refused = clapboard("train", "--project", "8")
    assert refused.exit_code == 1
    assert "too few labels to learn from (“dog” 2)" in refused.stderr
    told = clapboard("train", "--project", "8", "--json")
    assert told.exit_code == 1
    assert lines(told)[0]["job"] is None


def test_an_unknown_project_is_refused(clapboard: Clapboard, store: Store) -> None:
    assert isinstance(clapboard("train", "--project", "99").exception, NotFoundError)


def test_without_a_worker_it_says_so_and_the_job_stays(clapboard: Clapboard, store: Store) -> None:
    refused = clapboard("train", "--project", "7", job_lease_s=0.5)
    assert isinstance(refused.exception, NoWorkerError)
    assert [job.kind for job in store.jobs.newest(project=PROJECT)] == ["train"]


def test_the_outcome_is_told_with_its_exit_code(clapboard: Clapboard, store: Store) -> None:
    def fail_the_job() -> None:
        store.catalog.worker_alive("a worker", "mini", "cpu", TRAIN)
        while not (claimed := store.jobs.claim("a worker", TRAIN, 1)):
            pass
        store.jobs.report(claimed[0], "epoch 1 of at most 9")
        store.jobs.fail(claimed[0], TrainingError("Too few labels: label more."))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(fail_the_job)
        ended = clapboard("train", "--project", "7", "--json")
    (told,) = lines(ended)
    assert ended.exit_code == 1
    assert (told["state"], told["outcome"]) == ("failed", "Too few labels: label more.")


def test_a_version_is_repeated_by_its_name_and_an_unknown_one_is_refused(clapboard: Clapboard, store: Store) -> None:
    version = Version(PROJECT, "mini-tuned-3-11.head-bb.s1", "models/7/mini-tuned-3", "11", "head-bb", "s1")
    store.versions.put(version)
    (told,) = lines(clapboard("train", "--project", "7", "--repeat", "mini-tuned-3", "--no-wait", "--json"))
    job = store.jobs.get(told["job"])
    assert (job.queue, job.kind, job.model_version) == (TRAIN, "repeat", version.model_version)
    assert isinstance(clapboard("train", "--project", "7", "--repeat", "v9").exception, NotFoundError)
