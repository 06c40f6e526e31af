"""Real workers of two models on one store: each takes the jobs of its own, and those of another stay and are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.queue.celery_app import BATCH, INTERACTIVE
from clapboard.store.jobs import JobRequest, State
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Installation
from tests.support.waiting import wait_for

NUM_TASKS = 40


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, tiny_clap: Path) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("for_whom")
    with Installation(folder, tiny_clap, allow_private_urls=True, predict_wait_s=1) as installation:
        yield installation


def test_a_worker_of_another_model_leaves_the_served_models_jobs(
    installation: Installation, tiny_fused_clap: Path
) -> None:
    assert installation.worker().stop() == 0
    backend = installation.serve()
    installation.worker(model=tiny_fused_clap)
    store = installation.store
    with AudioServer() as audio:
        tasks = [audio.task(number) for number in range(1, NUM_TASKS + 1)]
        backend.results(CHOICES, tasks)
        store.jobs.add(BATCH, [JobRequest("prelabel", 1)])  # about a project, and for that model too
        told = installation.run("doctor", "--json").stdout
        assert "No living worker can take some of the queued jobs (1 for " in told
        assert f", {NUM_TASKS} for " in told
        assert {state for _, state in store.jobs.counts()} == {State.QUEUED}
        installation.worker()
        wait_for(lambda: store.jobs.counts().get((INTERACTIVE, State.DONE)) == NUM_TASKS, "jobs are left")
        results = backend.results(CHOICES, tasks)
    assert all(one["result"] for one in results)
    assert {backend.setup(CHOICES).json()["model_version"]} == {one["model_version"] for one in results}
