"""The services by themselves: on a real store, with the part of Label Studio and of the workers played by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backend.answering import OpenRequest, PredictAnswer
from backend.services import Services
from clapboard.labels.label_config import parse_label_config
from clapboard.queue.celery_app import INTERACTIVE
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.predictions import Delivery, StoredPrediction
from clapboard.suggest import prediction
from tests.support.fake_label_studio import CHOICES

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
LOADED = f"{ENCODER.version} {ENCODER.dtype}"
LABELS = parse_label_config(CHOICES)
VERSION = prediction.model_version(ENCODER, LABELS)
SHOWN = prediction.shown_name(VERSION)
RESULT = [{"id": "c", "from_name": "clip", "to_name": "audio", "type": "choices", "value": {"choices": ["dog"]}}]


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Waker:
    """Keeps the queues whose workers were woken."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    def wake(self, queue: str) -> bool:
        self.woken.append(queue)
        return True


class World:
    """The services on a store of their own, with a test in the part of Label Studio and of a worker."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.waker = Waker()
        self.store = Store(f"sqlite:///{folder / 'clapboard.db'}", clock=self.clock)
        settings = Settings(MODEL_DIR=folder, CLAPBOARD_MODEL="mini", CLAPBOARD_PREDICT_WAIT_S=20)
        self.sources = AudioSources(settings)
        self.services = Services.on(settings, self.store, self.waker)
        self.predictions = self.services.predictions

    def open(self, *tasks: dict[str, Any], config: str = CHOICES) -> OpenRequest:
        """A request that isn't answered at once."""
        request = self.predictions.open(tasks, config, "1.1")
        assert isinstance(request, OpenRequest)
        return request

    def finish(self, request: OpenRequest) -> list[Any]:
        """The entries of its answer."""
        return self.predictions.finish(request).results

    def predict(self, *tasks: dict[str, Any], config: str = CHOICES) -> list[Any]:
        """The entries of a request that doesn't wait."""
        request = self.predictions.open(tasks, config, "1.1")
        return request.results if isinstance(request, PredictAnswer) else self.finish(request)

    def store_predictions(self, *tasks: int) -> None:
        """Store the tasks' predictions, as of an earlier request."""
        keys = {number: self.sources.key(uri(number)) for number in tasks}
        self.store.predictions.put_all(
            [StoredPrediction(1, n, VERSION, k, n / 100, RESULT) for n, k in keys.items()], push=False
        )

    def work(self) -> list[int]:
        """Predict all that is queued, as a worker does; the tasks."""
        jobs = self.store.jobs.claim("worker", INTERACTIVE, 100)
        for job in jobs:
            predicted = StoredPrediction(1, job.task, VERSION, job.payload["uri_key"], job.task / 100, RESULT)
            self.store.finish_with_prediction(job, predicted)
        return [job.task for job in jobs]

    def embed(self, *tasks: int) -> None:
        """Store the embeddings of the tasks' recordings and the labels' class weights."""
        vectors = np.array([[1.0, 0.0]], np.float32)
        for number in tasks:
            self.store.embeddings.put(f"{number:064}", ENCODER.version, ENCODER.dtype, 0, vectors)
            self.store.embeddings.put_recording(self.sources.key(uri(number)), Recording(f"{number:064}", 1, 1.0))
        space_id = prediction.space_id(LABELS)
        self.store.catalog.put_label_space(space_id, CHOICES)
        weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
        self.store.catalog.put_class_weights(ENCODER.version, space_id, weights)

    def delivery(self, task: int) -> dict[Delivery, int]:
        assert self.store.predictions.model_versions(1) == [VERSION]
        counts = self.store.predictions.counts(1, SHOWN)
        assert sum(counts.values()) == 1
        return counts


def uri(number: int) -> str:
    return f"https://host.example/{number}.wav"


def task(number: int, **others: Any) -> dict[str, Any]:
    return {"id": number, "data": {"audio": uri(number)}} | others


def predicted(number: int) -> dict[str, Any]:
    """The task's entry in an answer."""
    return {"result": RESULT, "score": number / 100, "model_version": SHOWN}
