"""Recordings that are too long, that hang, or that break their decoder: each job fails alone, with its sentence."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clapboard.audio import windows
from clapboard.audio.confined.decoders import Decoders
from clapboard.audio.confined.fork_server import ForkServer
from clapboard.audio.windows import Window
from clapboard.queue.celery_app import INTERACTIVE, QUEUES, PredictPayload
from clapboard.store.jobs import JobRequest, State
from clapboard.suggest.head import ZERO_SHOT
from tests.support.audio_server import AudioServer, wav
from tests.support.hostile_decoder import DECODE, hostile
from tests.support.recordings import silent_flac
from tests.support.waiting import WAIT_S
from tests.workers.conftest import SPACE_ID, CountingEncoder, World
from workers.predict_jobs import PredictJobs
from workers.process import AUDIO_FAILURES_BY_SETTINGS, WorkerProcess


def ask(world: World, contents: dict[int, bytes]) -> None:
    """A job for each task, whose audio has that content."""
    requests = []
    for task, content in contents.items():
        uri = f"data:audio/wav;base64,{base64.b64encode(content).decode()}"
        payload = PredictPayload(
            uri=uri, uri_key=world.sources.key(uri), encoder="counting", space_id=SPACE_ID, head=ZERO_SHOT
        )
        requests.append(JobRequest("predict", 1, task, world.version, payload.model_dump()))
    world.store.jobs.add(INTERACTIVE, requests)


def run(world: World) -> None:
    """Claim all jobs together and run them."""
    PredictJobs(world.store, world.stage, world.encoders, world.heads, on_owed=lambda: None).run(world.claimed())


def failures(world: World) -> dict[int, tuple[str | None, str | None]]:
    """Code and sentence of the jobs that failed, by task. No other job may be open."""
    jobs = world.store.jobs.newest(limit=100)
    assert {job.state for job in jobs} <= {State.DONE, State.FAILED}
    return {job.task: (job.error_code, job.error) for job in jobs if job.state == State.FAILED}


def test_a_recording_that_is_too_long_fails_alone_and_costs_no_forward_pass(world: World) -> None:
    ask(world, {1: wav(1), 2: silent_flac(3600), 3: wav(3)})
    run(world)
    assert failures(world) == {
        2: (
            "audio_too_long",
            "The task's audio is longer than the 2 min that CLAPBOARD_MAX_AUDIO_S allows: cut it into shorter files, "
            "or raise that setting.",
        )
    }
    assert world.predicted(1, 2, 3) == [1, 3]
    assert sum(world.encoder.batches) == 2
    counted = world.metrics.registry.get_sample_value("clapboard_audio_errors_total", {"reason": "audio_too_long"})
    assert counted == 1
    assert {"audio_too_long", "timed_out"} <= set(AUDIO_FAILURES_BY_SETTINGS)  # a new setting gets a new try


def test_files_that_break_their_decoder_fail_alone_in_a_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Decoders(ForkServer(DECODE), silent_s=3.0)
    monkeypatch.setattr(windows, "decoders", lambda: pool)
    worker = WorkerProcess(world.settings, world.store, world.encoder, QUEUES)  # type: ignore[arg-type]
    deeds = {2: hostile("segfault"), 4: hostile("bomb"), 6: hostile("hang")}
    ask(world, deeds | {task: wav(task) for task in (1, 3, 5, 7)})
    worker.threads.drain(INTERACTIVE)
    reasons = failures(world)
    assert {task: code for task, (code, _) in reasons.items()} == dict.fromkeys(deeds, "audio")
    assert "The task's audio ended its decoder with SIGSEGV" in str(reasons[2])
    assert "needed more than 1 GB of memory" in str(reasons[4])
    assert "gave no more sound within 3 s" in str(reasons[6])
    assert world.predicted(*range(1, 8)) == [1, 3, 5, 7]
    ask(world, {8: wav(8)})
    worker.threads.drain(INTERACTIVE)
    assert world.predicted(8) == [8]
    worker.close()
    pool.close()


class HangingEncoder(CountingEncoder):
    """One whose recordings of half a second never come to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def views(self, path: Path, **reading: Any) -> Iterator[Window]:
        for window in super().views(path, **reading):
            if window.end_s == 0.5:
                assert self.go_on.wait(WAIT_S)
            yield window


@pytest.fixture
def hurried(tmp_path: Path, audio: AudioServer) -> Iterator[World]:
    """A world where a job may take a second."""
    world = World(tmp_path, audio, timeout_s=1.0)
    yield world
    world.close()


def test_a_recording_that_hangs_fails_alone_and_the_worker_goes_on(hurried: World) -> None:
    encoder = hurried.encoders.base = HangingEncoder()  # type: ignore[assignment]
    ask(hurried, {1: wav(1, 0.4), 2: wav(2), 3: wav(3, 0.4)})
    began = time.monotonic()
    run(hurried)
    assert time.monotonic() - began < 60
    assert failures(hurried) == {
        2: (
            "timed_out",
            "The task's audio wasn't read and embedded within the 1 s of CLAPBOARD_JOB_TIMEOUT_S: the worker's log may "
            "say why; cut it into shorter files, or raise that setting.",
        )
    }
    ask(hurried, {4: wav(4, 0.4)})
    run(hurried)
    assert hurried.predicted(1, 2, 3, 4) == [1, 3, 4]
    encoder.go_on.set()


def test_a_fetch_that_hangs_fails_alone(hurried: World) -> None:
    with hurried.audio.holding("2/clip.wav"):
        hurried.ask(1, 2, 3)
        run(hurried)
        assert hurried.predicted(1, 2, 3) == [1, 3]
        ((code, sentence),) = failures(hurried).values()
    assert code == "timed_out"
    assert "wasn't fetched within the 1 s" in str(sentence)
