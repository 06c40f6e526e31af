"""Pipeline: files in, recordings out, through threads that outlive whatever a file does to them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import generate_latest

from clapboard.audio.windows import Window
from clapboard.errors import AudioError, ClapboardError, InternalError
from clapboard.model.clap import ClapEncoder
from clapboard.store.embeddings import Recording
from tests.support.waiting import WAIT_S, wait_for
from tests.workers.conftest import CountingEncoder, World
from workers.pipeline import Pipeline


def embed(world: World, path: str, *, urgent: bool = False, encoder: Any = None) -> Future[Recording]:
    source = world.sources.fetch(world.audio.url(path))
    return world.pipeline.embed(encoder or world.encoder, source, urgent=urgent)


class NotingEncoder(CountingEncoder):
    """One that can tell whether anybody still holds what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[weakref.ref[Window]] = []

    def has_all_let_go(self) -> bool:
        return all(window() is None for window in self.heard)

    def embed_views(self, views: Sequence[Window]) -> npt.NDArray[np.float32]:
        self.heard += map(weakref.ref, views)
        return super().embed_views(views)


class HeldEncoder(CountingEncoder):
    """One whose forward passes wait."""

    def __init__(self) -> None:
        super().__init__(version="held567890123456")
        self.begun, self.go_on = threading.Event(), threading.Event()

    def embed_windows(self, waveforms: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self.begun.set()
        assert self.go_on.wait(WAIT_S)
        return super().embed_windows(waveforms)


def test_windows_of_several_files_share_a_forward_pass(world: World) -> None:
    encoder = HeldEncoder()
    first = embed(world, "1/clip.wav", encoder=encoder)
    assert encoder.begun.wait(WAIT_S)
    others = [embed(world, f"{task}/clip.wav", encoder=encoder) for task in range(2, 10)]
    encoder.go_on.set()
    assert {future.result(WAIT_S).num_windows for future in [first, *others]} == {1}
    assert sum(encoder.batches) == 9
    assert encoder.batches[1] == encoder.batch_size


def test_a_file_that_is_under_way_is_embedded_once(world: World) -> None:
    encoder = HeldEncoder()
    first = embed(world, "1/clip.wav", encoder=encoder)
    assert encoder.begun.wait(WAIT_S)
    again = embed(world, "1/clip.wav", encoder=encoder, urgent=True)
    encoder.go_on.set()
    assert first.result(WAIT_S) == again.result(WAIT_S)
    assert encoder.batches == [1]


def test_an_encoder_with_fusion_embeds_a_long_recording_as_a_whole(world: World, tiny_fused_clap: Path) -> None:
    whole, windowed = (
        ClapEncoder.load(str(tiny_fused_clap), device="cpu", engine="torch", fusion=fusion) for fusion in (True, False)
    )
    paths = [f"{number}/clip.wav?s={duration_s}" for number, duration_s in enumerate((23, 4, 31))]
    for encoder, num_windows in ((whole, [1, 1, 1]), (windowed, [3, 1, 4]), (whole, [1, 1, 1])):
        futures = [embed(world, path, encoder=encoder) for path in paths]
        found = [future.result(WAIT_S) for future in futures]
        assert [recording.num_windows for recording in found] == num_windows
        assert [recording.duration_s for recording in found] == [23, 4, 31]
        stored = world.store.embeddings.get(found, encoder.identity.version, "float32")
        assert [len(stored[recording.sha256]) for recording in found] == num_windows
    for path, recording in zip(paths, found, strict=True):
        file = world.sources.fetch(world.audio.url(path)).path
        expected = whole.embed_recording(file)
        assert np.linalg.norm(stored[recording.sha256][0] - expected) <= 1e-6


def test_samples_are_let_go_of_once_they_are_embedded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, put_all = NotingEncoder(), world.store.embeddings.put_all
    held: list[int] = []

    def put_without_samples(*stored: Any) -> None:
        wait_for(encoder.has_all_let_go, "samples are held while their embeddings are stored", 60)
        held.append(len(encoder.heard))
        put_all(*stored)

    monkeypatch.setattr(world.store.embeddings, "put_all", put_without_samples)
    for task in range(3):
        assert embed(world, f"{task}/clip.wav?s=25", encoder=encoder).result(WAIT_S).num_windows == 3
    assert sum(held) > 0


def test_a_failure_ends_the_files_of_its_batch_and_no_stage(world: World) -> None:
    world.encoder.failures = [RuntimeError("a cosmic ray")]
    failed = embed(world, "1/clip.wav")
    with pytest.raises(InternalError, match="while embedding"):
        failed.result(WAIT_S)
    assert embed(world, "1/clip.wav").result(WAIT_S).num_windows == 1


def test_a_file_that_cant_be_decoded_fails_alone(world: World) -> None:
    bad, good = embed(world, "corrupt/1.wav"), embed(world, "2/clip.wav")
    assert isinstance(bad.exception(WAIT_S), AudioError)
    assert good.result(WAIT_S).duration_s == 0.5


def test_a_store_that_cant_be_written_fails_what_was_to_be_written(world: World) -> None:
    with world.store.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON embeddings BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    with pytest.raises(InternalError, match="while storing embeddings"):
        embed(world, "1/clip.wav").result(WAIT_S)
    with world.store.database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse")
    assert embed(world, "1/clip.wav").result(WAIT_S).num_windows == 1


def test_what_is_under_way_when_the_pipeline_closes_is_to_be_tried_again(world: World) -> None:
    encoder = HeldEncoder()
    pipeline = Pipeline(world.store, world.metrics, num_decoders=1, batch_size=1)
    sources = [world.sources.fetch(world.audio.url(f"{task}/clip.wav")) for task in range(1, 40)]
    files = [pipeline.embed(encoder, source, urgent=False) for source in sources]  # type: ignore[arg-type]
    assert encoder.begun.wait(WAIT_S)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    encoder.go_on.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    done, _ = wait(files, timeout=WAIT_S)
    assert len(done) == len(files)
    errors = [error for future in files if (error := future.exception()) is not None]
    assert errors
    assert all(isinstance(error, ClapboardError) and error.retryable for error in errors)


def test_the_pipeline_counts_windows_stages_and_recordings(world: World) -> None:
    recording = embed(world, "1/clip.wav").result(WAIT_S)
    world.store.embeddings.put_recording("its address", recording)
    assert embed(world, "1/clip.wav").result(WAIT_S) == recording
    text = generate_latest(world.metrics.registry).decode()
    assert "clapboard_windows_total 1.0" in text
    assert 'clapboard_recordings_total{had="cached"} 1.0' in text
    assert 'clapboard_recordings_total{had="computed"} 1.0' in text
    for stage in ("decode", "forward", "store"):
        assert f'clapboard_stage_seconds_count{{stage="{stage}"}} 1.0' in text
