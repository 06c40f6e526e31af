"""JobEmbedder: every job comes out once, with its recording or with its own reason."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapboard.errors import ModelError
from clapboard.queue.celery_app import PredictPayload
from clapboard.store.jobs import Job, JobRequest
from clapboard.suggest.head import ZERO_SHOT
from tests.workers.conftest import SPACE_ID, CountingEncoder, World
from workers.job_embedder import EmbeddedJob


def run(world: World, jobs: list[Job], encoder: CountingEncoder | None = None) -> list[EmbeddedJob]:
    """All that comes out."""
    return [*itertools.chain.from_iterable(world.stage.run(jobs, encoder or world.encoder))]  # type: ignore[arg-type]


def by_task(found: list[EmbeddedJob]) -> dict[int, EmbeddedJob]:
    tasks = [one.job.task for one in found]
    assert len(tasks) == len(set(tasks))
    return {one.job.task: one for one in found}


def long_clip(num_windows: int) -> str:
    """A recording of so many windows, as a data URI."""
    file = io.BytesIO()
    noise = np.random.default_rng(num_windows).uniform(-0.5, 0.5, num_windows * 10 * 8000).astype(np.float32)
    soundfile.write(file, noise, 8000, format="FLAC")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture
def job_for(world: World) -> Callable[[int, str], Job]:
    """Queues a URI for a task and claims the job."""

    def claim(task: int, uri: str) -> Job:
        key = world.sources.key(uri)
        payload = PredictPayload(uri=uri, uri_key=key, encoder="counting", space_id=SPACE_ID, head=ZERO_SHOT)
        world.store.jobs.add("interactive", [JobRequest("predict", 1, task, world.version, payload.model_dump())])
        (job,) = world.claimed()
        return job

    return claim


def test_without_jobs_nothing_is_embedded(world: World) -> None:
    assert run(world, []) == []
    assert world.encoder.batches == []


def test_every_job_comes_out_with_its_recording_whose_embeddings_are_stored(world: World) -> None:
    world.ask(*range(1, 7))
    found = by_task(run(world, world.claimed()))
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    identity = world.encoder.identity
    for one in found.values():
        assert one.error is None
        assert one.recording is not None
        assert (one.recording.num_windows, one.recording.duration_s) == (1, 0.5)
        vectors = world.store.embeddings.get([one.recording], identity.version, identity.dtype)
        assert vectors[one.recording.sha256].shape == (1, 4)
    assert sum(world.encoder.batches) == 6
    assert max(world.encoder.batches) <= world.encoder.batch_size


def test_each_bad_clip_has_its_own_reason_and_the_others_are_done(world: World) -> None:
    world.ask(1, 4)
    world.ask(2, path="corrupt/{}.wav")
    world.ask(3, path="missing/{}.wav")
    found = by_task(run(world, world.claimed()))
    assert [found[task].error is None for task in (1, 2, 3, 4)] == [True, False, False, True]
    assert "no audio that can be decoded" in str(found[2].error)
    assert "HTTP 404" in str(found[3].error)


def test_the_same_audio_under_two_addresses_is_embedded_once_in_one_batch_and_over_two(world: World) -> None:
    world.ask(1, path="5/a.wav")
    world.ask(2, path="5/b.wav")
    first = by_task(run(world, world.claimed()))
    world.ask(3, path="5/c.wav")
    world.ask(4, path="5/a.wav")
    second = by_task(run(world, world.claimed()))
    assert sum(world.encoder.batches) == 1
    recordings = {one.recording for one in [*first.values(), *second.values()]}
    assert len(recordings) == 1
    assert world.audio.requests == {"5/a.wav": 1, "5/b.wav": 1, "5/c.wav": 1}


def test_another_encoder_embeds_again(world: World) -> None:
    world.ask(1)
    (first,) = run(world, world.claimed())
    other = CountingEncoder(version="fedcba9876543210")
    world.store.jobs.done(first.job)
    world.ask(1)
    (second,) = run(world, world.claimed(), other)
    assert second.recording == first.recording
    assert other.batches == [1]


def test_a_long_recording_is_embedded_window_by_window_between_short_ones(
    world: World, job_for: Callable[[int, str], Job]
) -> None:
    long = job_for(1, long_clip(9))
    world.ask(2, 3)
    found = by_task(run(world, [long, *world.claimed()]))
    recording = found[1].recording
    assert recording is not None
    assert (recording.num_windows, recording.duration_s) == (9, 90.0)
    identity = world.encoder.identity
    assert world.store.embeddings.get([recording], identity.version, identity.dtype)[recording.sha256].shape == (9, 4)
    assert sum(world.encoder.batches) == 11
    assert max(world.encoder.batches) <= 4  # how full they get depends on how fast windows come


def test_batching_does_not_change_an_embedding(
    world: World, tmp_path: Path, job_for: Callable[[int, str], Job]
) -> None:
    vectors = []
    for batch_size in (1, 3, 16):
        encoder = CountingEncoder(version=f"{batch_size:016}", batch_size=batch_size)
        (found,) = run(world, [job_for(batch_size, long_clip(7))], encoder)
        assert found.recording is not None
        vectors.append(
            world.store.embeddings.get([found.recording], encoder.identity.version, "float32")[found.recording.sha256]
        )
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_what_fails_in_the_forward_pass_is_blamed_on_its_batch_alone_and_may_be_tried_again(world: World) -> None:
    world.ask(1, 2, 3)
    world.encoder.failures = [RuntimeError("a cosmic ray, t0ken")]
    found = by_task(run(world, world.claimed()))
    errors = [one.error for one in found.values() if one.error is not None]
    assert errors
    assert all(error.retryable and "t0ken" not in str(error) for error in errors)
    assert {str(error) for error in errors} == {
        "An unexpected error while embedding (RuntimeError): the worker's log says where."
    }


def test_a_model_that_cannot_do_it_at_all_is_told_in_its_own_words(world: World) -> None:
    world.ask(1)
    world.encoder.failures = [ModelError("Device cpu has too little memory.")]
    (found,) = run(world, world.claimed())
    assert str(found.error) == "Device cpu has too little memory."


def test_a_recording_that_fails_in_its_middle_leaves_no_recording_behind(
    world: World, job_for: Callable[[int, str], Job]
) -> None:
    uri = long_clip(9)
    job = job_for(1, uri)

    class FailsLater(CountingEncoder):
        def embed_windows(self, waveforms: np.ndarray) -> np.ndarray:
            if len(self.batches) == 1:
                self.failures = [RuntimeError()]
            return super().embed_windows(waveforms)

    encoder = FailsLater()
    (failed,) = run(world, [job], encoder)
    assert failed.error is not None
    assert failed.error.retryable
    assert world.store.embeddings.recordings([world.sources.key(uri)]) == {}
    (again,) = run(world, [job])
    assert again.recording is not None
    assert again.recording.num_windows == 9


def test_a_clip_that_is_slow_to_come_does_not_hold_up_its_neighbours(world: World) -> None:
    world.ask(1, 2, 3, 4, 5)
    with world.audio.holding("2/clip.wav"):
        running = world.stage.run(world.claimed(), world.encoder)  # type: ignore[arg-type]
        early: list[int] = []
        while len(early) < 4:
            early += [one.job.task for one in next(running)]
    assert sorted(early) == [1, 3, 4, 5]
    assert [one.job.task for group in running for one in group] == [2]
