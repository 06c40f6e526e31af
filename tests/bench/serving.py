"""The backend's own time: cached predictions beside the same framework answering a constant of that size."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.testclient import TestClient

from backend.app import create_app
from clapboard.errors import SourceError
from clapboard.labels.label_config import parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest import prediction

CONFIG = """<View><Audio name="audio" value="$audio"/><Choices name="sound" toName="audio">
<Choice value="dog bark"/><Choice value="rain"/></Choices></View>"""


def predict_seconds(*, num_tasks: int, rounds: int) -> tuple[float, float]:
    """Median seconds of a `/predict` whose tasks are all cached, and of a constant answer of the same bytes."""
    tasks = [{"id": i + 1, "data": {"audio": f"/data/upload/1/clip-{i}.ogg"}} for i in range(num_tasks)]
    body = {"tasks": tasks, "label_config": CONFIG, "project": "1.1"}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(MODEL_DIR=Path(folder), CLAPBOARD_MODEL="bench")
        _fill(settings, tasks)
        with TestClient(create_app(settings)) as ours:
            answer = ours.post("/predict", json=body)
            if any(entry == [] for entry in answer.json()["results"]):
                raise RuntimeError("not every task was cached")
            with TestClient(_constant(answer.content)) as peer:
                spent: dict[TestClient, list[float]] = {ours: [], peer: []}
                for _ in range(rounds):
                    for client, seconds in spent.items():
                        began = time.perf_counter()
                        client.post("/predict", json=body)
                        seconds.append(time.perf_counter() - began)
                return statistics.median(spent[ours]), statistics.median(spent[peer])


def failed_seconds(*, rounds: int) -> float:
    """95th percentile of a `/predict` for one task that failed before, half of them a moment and half an hour ago."""
    recent, old = ({"id": i, "data": {"audio": f"https://host.example/{i}.wav"}} for i in (1, 2))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(MODEL_DIR=Path(folder), CLAPBOARD_MODEL="bench")
        _fill(settings, [])
        sources, store = AudioSources(settings), Store.open(settings)
        store.catalog.worker_alive("idle", "bench", "cpu", "interactive", "000000000000 float32")
        store.audio_failures.put(
            {sources.key(task["data"]["audio"]): SourceError("Not there.") for task in (recent, old)}
        )
        with store.database.write() as connection:
            hour_ago = "UPDATE audio_failures SET failed_at = failed_at - 3600 WHERE subject = ?"
            connection.exec_driver_sql(hour_ago, (sources.key(old["data"]["audio"]),))
        store.close()
        with TestClient(create_app(settings)) as client:
            return float(np.percentile([_spent(client, (recent, old)[i % 2]) for i in range(rounds)], 95))


def _spent(client: TestClient, task: dict[str, Any]) -> float:
    began = time.perf_counter()
    answer = client.post("/predict", json={"tasks": [task], "label_config": CONFIG, "project": "1.1"})
    spent_s = time.perf_counter() - began
    if answer.json()["results"] != [[]]:
        raise RuntimeError("the task has not failed")
    return spent_s


def _fill(settings: Settings, tasks: list[dict[str, Any]]) -> None:
    encoder = Encoder("bench", "0" * 12, "float32", 512, 14.0)
    version = prediction.model_version(encoder, parse_label_config(CONFIG))
    sources, store = AudioSources(settings), Store.open(settings)
    store.catalog.announce_encoder(encoder)
    result = [
        {"from_name": "sound", "to_name": "audio", "type": "choices", "value": {"choices": ["rain"]}, "score": 0.9}
    ]
    found = [
        StoredPrediction(1, task["id"], version, sources.key(task["data"]["audio"]), 0.9, result) for task in tasks
    ]
    store.predictions.put_all(found, push=False)
    store.close()


def _constant(content: bytes) -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        await request.json()
        return Response(content, media_type="application/json")

    return app
