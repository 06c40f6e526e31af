"""What a worker holds open: descriptors, cached files and memory, over many recordings."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from clapboard.queue.celery_app import BATCH, QUEUES, PredictPayload
from clapboard.store.jobs import Job, JobRequest, State
from clapboard.suggest.head import ZERO_SHOT
from tests.support.recordings import data_uri
from tests.workers.conftest import SPACE_ID, World
from workers.process import WorkerProcess

NO_AUDIO = "data:audio/wav;base64,dGhpcyBpcyBubyBhdWRpbw=="


@contextmanager
def no_collection() -> Iterator[None]:
    """Nothing is freed but by its last reference: when the collector comes by is nobody's to say."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def queue(world: World, uris: Sequence[str]) -> None:
    """A predict job for each address, with the project's tasks numbered from 1."""
    requests = []
    for task, uri in enumerate(uris, 1):
        payload = PredictPayload(
            uri=uri, uri_key=world.sources.key(uri), encoder="counting", space_id=SPACE_ID, head=ZERO_SHOT
        )
        requests.append(JobRequest("predict", 1, task, world.version, payload.model_dump()))
    world.store.jobs.add(BATCH, requests)


def num_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def clip(task: int) -> str:
    """An address of its own for each task; every tenth task has another sound, every fiftieth none."""
    uri = NO_AUDIO if task % 50 == 0 else data_uri(task // 10)
    return uri.replace(";", f";task={task};", 1)


def test_a_thousand_recordings_leave_no_file_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.encoder.batch_size = 32
    worker = WorkerProcess(world.settings, world.store, world.encoder, QUEUES)  # type: ignore[arg-type]
    queue(world, [clip(task) for task in range(1000)])
    counts: list[int] = []
    run = worker.jobs.run

    def run_and_count(jobs: Sequence[Job]) -> None:
        run(jobs)
        counts.append(num_open())

    monkeypatch.setattr(worker.jobs, "run", run_and_count)
    with no_collection():
        worker.threads.drain(BATCH)
    worker.close()
    assert world.store.jobs.counts() == {(BATCH, State.DONE): 980, (BATCH, State.FAILED): 20}
    assert max(counts) - counts[0] <= 8, counts
