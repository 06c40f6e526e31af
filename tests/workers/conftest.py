"""What the workers' parts work with: real stores and sources, audio over HTTP, and an encoder that counts."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sqlalchemy import select

from clapboard.audio.windows import Window, windows
from clapboard.errors import ModelError
from clapboard.label_studio.tally import RequestTally
from clapboard.labels.label_config import parse_label_config
from clapboard.model.clap import ClapEncoder, EncoderIdentity, WindowFrames
from clapboard.queue.celery_app import INTERACTIVE, PredictPayload
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest
from clapboard.store.predictions import StoredPrediction
from clapboard.store.schema import predictions
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES
from workers.encoder_pool import EncoderPool
from workers.head_cache import HeadCache
from workers.job_embedder import JobEmbedder
from workers.pipeline import Pipeline
from workers.worker_metrics import WorkerMetrics

LABELS = parse_label_config(CHOICES)
SPACE_ID = prediction.space_id(LABELS)


class CountingEncoder:
    """An encoder whose embeddings follow from the samples, which counts windows and fails when told to."""

    def __init__(self, version: str = "0123456789abcdef", batch_size: int = 4, model: str = "counting") -> None:
        self.identity = EncoderIdentity(model, version, "float32", 4, 10.0)
        self.computing = "a processor for tests, which counts"
        self.logit_scale = 10.0
        self.batch_size = batch_size
        self.device = torch.device("cpu")
        self.frame_scores = None
        self.batches: list[int] = []
        self.failures: list[Exception] = []
        self._turn = threading.Lock()

    def embed_windows(self, waveforms: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        with self._turn:
            self.batches.append(len(waveforms))
            if self.failures:
                raise self.failures.pop(0)
        rows = np.stack(waveforms).reshape(len(waveforms), 4, -1)[:, :, :64].sum(axis=2) + np.float32(0.1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    num_frames, frame_s, fusion = 16, 0.625, False

    def embed_windows_with_frames(self, waveforms: Sequence[npt.NDArray[np.float32]]) -> WindowFrames:
        rows = np.stack(waveforms).reshape(len(waveforms) * self.num_frames, -1)
        frames = np.stack([rows.mean(axis=1), rows[:, 0], rows[:, -1], np.full(len(rows), 0.1, np.float32)], axis=1)
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        levels = np.full((len(waveforms), 200, 16), -60, np.float32)
        return WindowFrames(self.embed_windows(waveforms), frames.reshape(-1, self.num_frames, 4), levels)

    def views(self, path: Path, **reading: Any) -> Iterator[Window]:
        return windows(path, **reading)

    def embed_views(self, views: Sequence[Window]) -> npt.NDArray[np.float32]:
        return self.embed_windows([view.waveform for view in views])

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = np.array([np.random.default_rng(len(text)).normal(size=4) for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def no_checkpoint(name: str) -> ClapEncoder:
    """Loads nothing: there is none."""
    raise ModelError(f"The checkpoint {name} can't be read.")


class World:
    """A store, sources and an audio server, with what a backend would queue."""

    def __init__(self, folder: Path, audio: AudioServer, database_url: str = "", timeout_s: float = math.inf) -> None:
        self.settings = Settings(
            MODEL_DIR=folder,
            CLAPBOARD_MODEL="counting",
            CLAPBOARD_ALLOW_PRIVATE_URLS=True,
            CLAPBOARD_JOB_LEASE_S=1,
            CLAPBOARD_DATABASE_URL=database_url,
            CLAPBOARD_MAX_AUDIO_S=120,
        )
        self.audio = audio
        self.store = Store.open(self.settings)
        self.sources = AudioSources(self.settings)
        self.encoder = CountingEncoder()
        self.encoders = EncoderPool(self.encoder, no_checkpoint, capacity=4)  # type: ignore[arg-type]
        self.heads = HeadCache(self.store)
        self.metrics = WorkerMetrics(RequestTally(), torch.device("cpu"), dict)
        self.pipeline = Pipeline(
            self.store,
            self.metrics,
            num_decoders=2,
            batch_size=self.encoder.batch_size,
            longest_s=self.settings.max_audio_s,
            timeout_s=timeout_s,
        )
        self.stage = JobEmbedder(self.store, self.sources, self.pipeline, self.metrics, timeout_s=timeout_s)
        self.version = prediction.model_version(self.encoder.identity, LABELS)
        self.store.catalog.put_label_space(SPACE_ID, CHOICES)

    def close(self) -> None:
        """Stop all threads."""
        self.stage.close()
        self.store.close()

    def ask(
        self,
        *tasks: int,
        path: str = "{}/clip.wav",
        queue: str = INTERACTIVE,
        push: bool = False,
        space_id: str = SPACE_ID,
        frames: bool = False,
    ) -> list[int]:
        """Queue a job for each task; the ids."""
        requests = []
        for task in tasks:
            uri = self.audio.url(path.format(task))
            payload = PredictPayload(
                uri=uri,
                uri_key=self.sources.key(uri),
                encoder="counting",
                space_id=space_id,
                head=ZERO_SHOT,
                frames=frames,
            )
            requests.append(JobRequest("predict", 1, task, self.version, payload.model_dump(), push))
        return self.store.jobs.add(queue, requests)

    def claimed(self, queue: str = INTERACTIVE) -> list[Job]:
        """All that is queued, claimed by a worker of the test's."""
        return self.store.jobs.claim("test", queue, 100)

    def predicted(self, *tasks: int) -> list[int]:
        """Those of the tasks that have a prediction."""
        return [task for task in sorted(tasks) if self._held(task) is not None]

    def prediction(self, task: int) -> StoredPrediction:
        """The task's prediction."""
        held = self._held(task)
        assert held is not None
        return held

    def _held(self, task: int) -> StoredPrediction | None:
        query = select(predictions).where(predictions.c.task == task, predictions.c.model_version == self.version)
        with self.store.database.read() as connection:
            row = connection.execute(query).one_or_none()
        return (
            StoredPrediction(row.project, row.task, row.model_version, row.uri_key, row.score, row.result)
            if row
            else None
        )


@pytest.fixture(scope="module")
def audio() -> Iterator[AudioServer]:
    with AudioServer() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, audio: AudioServer) -> Iterator[World]:
    audio.requests.clear()
    audio.waiting.clear()
    world = World(tmp_path, audio)
    yield world
    world.close()
