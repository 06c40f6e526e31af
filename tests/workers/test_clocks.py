"""Real workers on machines whose clocks differ, on one PostgreSQL: nobody's job is taken for lost."""

from __future__ import annotations

import time
from pathlib import Path

from clapboard.queue.celery_app import BATCH, TRAIN
from clapboard.store.jobs import JobRequest, State
from tests.support.audio_server import AudioServer
from tests.support.predict_jobs import queue_predictions
from tests.support.processes import Installation
from tests.support.waiting import wait_for

LEASE_S = 5
WRONG_S = 3600.0

_SHIFTED = f"""
import time
_right = time.time
time.time = lambda: _right() + {WRONG_S}
"""


def test_a_worker_whose_clock_is_wrong_keeps_its_jobs_and_leaves_those_of_others(
    tmp_path: Path, tiny_clap: Path, postgres_url: str
) -> None:
    machine = tmp_path / "machine"
    machine.mkdir()
    (machine / "sitecustomize.py").write_text(_SHIFTED)
    with (
        AudioServer() as audio,
        Installation(
            tmp_path / "state",
            tiny_clap,
            modules=machine,
            database_url=postgres_url,
            job_lease_s=LEASE_S,
            allow_private_urls=True,
        ) as installation,
    ):
        store, settings = installation.store, installation.settings
        with audio.holding("1/clip.wav"):
            worker = installation.worker("--queues", BATCH)
            queue_predictions(settings, store, [audio.url("1/clip.wav")])
            store.jobs.add(TRAIN, [JobRequest("train", 1)])
            (here,) = store.jobs.claim("here", TRAIN, 1)  # held by this test, on a machine with the right time
            wait_for(lambda: audio.waiting["1/clip.wav"], "the worker hasn't begun")
            tries = set()
            for _ in range(3 * LEASE_S):
                store.jobs.heartbeat("here")
                lost = store.jobs.requeue_lost(LEASE_S)
                assert not lost, "the worker's jobs are taken for lost"
                tries |= {job.attempts for job in store.jobs.newest()}
                assert store.jobs.get(here.id).worker == "here"
                wait_for(lambda: worker.is_alive, "the worker has ended")
                time.sleep(0.5)
            (alive,) = store.catalog.workers(LEASE_S)
            assert abs(alive.heartbeat_at - store.clock()) < LEASE_S
            assert tries == {1}
        store.jobs.done(here)
        wait_for(lambda: {job.state for job in store.jobs.newest()} == {State.DONE}, "jobs are left")
        store.jobs.add(BATCH, [JobRequest("prelabel", 1, delay_s=0.1)])
        wait_for(lambda: store.jobs.newest()[0].attempts, "a job that is due isn't begun")
