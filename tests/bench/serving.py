"""The backend's own time: cached predictions beside the same framework answering a constant of that size."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.testclient import TestClient

from backend.app import create_app
from clapboard import prediction
from clapboard.labels import parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.predictions import StoredPrediction

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
