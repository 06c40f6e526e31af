"""Jobs that need frames: embedded by overlapping windows, in the same batches as all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clapboard.errors import InternalError
from clapboard.model.clap import ClapEncoder
from clapboard.model.recording_frames import embed_recording
from clapboard.store.embeddings import Recording
from clapboard.store.schema import frames
from tests.support.waiting import WAIT_S
from tests.workers.conftest import CountingEncoder, World

KEY = ("0123456789abcdef", "float32")


def run(world: World) -> dict[int, Recording]:
    """By task, the recordings of all queued jobs."""
    found = {}
    for group in world.stage.run(world.claimed(), world.encoder):  # type: ignore[arg-type]
        for each in group:
            assert each.recording is not None, each.error
            found[each.job.task] = each.recording
            world.store.jobs.done(each.job)
    return found


def num_pieces(world: World) -> int:
    with world.store.database.read() as connection:
        return len(connection.execute(frames.select()).all())


def test_a_job_gets_the_frames_of_its_recording_and_the_embeddings_that_all_have(world: World) -> None:
    world.ask(1, path="{}/clip.wav?s=23", frames=True)
    recording = run(world)[1]
    assert (recording.num_windows, recording.duration_s) == (3, 23)
    encoder = CountingEncoder()
    source = world.sources.fetch(world.audio.url("1/clip.wav?s=23"))
    expected = embed_recording(encoder, source.path)  # type: ignore[arg-type]
    plain = encoder.embed_windows([window.waveform for window in encoder.views(source.path)])
    source.release()
    found = world.store.frames.get(recording, *KEY)
    assert found is not None
    assert found.frame_s == 0.625
    np.testing.assert_allclose(found.frames, expected.frames, atol=1e-3)
    np.testing.assert_array_equal(found.window_s, [[0, 10], [5, 15], [10, 20], [13, 23]])
    np.testing.assert_allclose(found.window_embeddings, expected.window_embeddings, atol=1e-3)
    np.testing.assert_array_equal(world.store.embeddings.get([recording], *KEY)[recording.sha256], plain)


def test_frames_are_made_anew_when_they_are_gone_and_only_then(world: World) -> None:
    world.ask(1, path="{}/clip.wav?s=17")
    recording = run(world)[1]
    assert (sum(world.encoder.batches), num_pieces(world)) == (2, 0)  # this job needs none
    for _ in range(2):
        world.ask(1, path="{}/clip.wav?s=17", frames=True)
        assert run(world)[1] == recording
        assert (sum(world.encoder.batches), num_pieces(world)) == (2 + 3, 3)
    with world.store.database.write() as connection:
        connection.execute(frames.delete().where(frames.c.piece_index == 0))
    world.ask(1, path="{}/clip.wav?s=17", frames=True)
    assert run(world)[1] == recording
    assert world.store.frames.stored([recording], *KEY) == {recording.sha256}


def test_jobs_with_and_without_frames_share_their_batches(world: World) -> None:
    world.ask(1, 2, path="{}/clip.wav?s=17", frames=True)
    world.ask(3, 4, path="{}/clip.wav?s=17")
    recordings = run(world)
    assert sum(world.encoder.batches) == 2 * 3 + 2 * 2
    assert {recording.num_windows for recording in recordings.values()} == {2}
    assert len(world.store.embeddings.get([*recordings.values()], *KEY)) == 4
    assert world.store.frames.stored([*recordings.values()], *KEY) == {recordings[1].sha256, recordings[2].sha256}


def test_an_encoder_with_fusion_adds_windows_for_frames(world: World, tiny_fused_clap: Path) -> None:
    encoder = ClapEncoder.load(str(tiny_fused_clap), device="cpu", engine="torch", fusion=True)
    source = world.sources.fetch(world.audio.url("1/clip.wav?s=23"))
    recording = world.pipeline.embed(encoder, source, urgent=False, frames=True).result(WAIT_S)
    assert (recording.num_windows, recording.duration_s) == (1, 23)
    key = encoder.identity.version, "float32"
    found = world.store.frames.get(recording, *key)
    again = world.sources.fetch(world.audio.url("1/clip.wav?s=23"))
    expected, whole = embed_recording(encoder, again.path), encoder.embed_recording(again.path)
    again.release()
    assert found is not None
    np.testing.assert_allclose(found.frames, expected.frames, atol=1e-3)
    np.testing.assert_allclose(world.store.embeddings.get([recording], *key)[recording.sha256][0], whole, atol=1e-6)


def test_a_store_that_cant_take_frames_fails_the_file(world: World) -> None:
    with world.store.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON frames BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    source = world.sources.fetch(world.audio.url("1/clip.wav"))
    with pytest.raises(InternalError, match="while storing embeddings"):
        world.pipeline.embed(world.encoder, source, urgent=False, frames=True).result(WAIT_S)  # type: ignore[arg-type]
    source = world.sources.fetch(world.audio.url("1/clip.wav"))
    assert world.pipeline.embed(world.encoder, source, urgent=False).result(WAIT_S).num_windows == 1  # type: ignore[arg-type]
