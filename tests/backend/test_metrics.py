"""`/metrics`, read as Prometheus reads it."""

from __future__ import annotations

import numpy as np
import pytest

from clapboard.errors import AudioError
from clapboard.labels.label_config import parse_label_config
from clapboard.queue.celery_app import BATCH, INTERACTIVE, QUEUES, TRAIN
from clapboard.sources import AudioSources
from clapboard.store.jobs import JobRequest, State
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest import prediction
from tests.backend.conftest import ENCODER
from tests.support.fake_label_studio import CHOICES
from tests.support.metric_samples import Samples, samples, value
from tests.support.processes import Backend, Installation


def scraped(backend: Backend) -> Samples:
    answer = backend.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(answer.text)


@pytest.fixture
def before(backend: Backend) -> Samples:
    return scraped(backend)


def test_requests_are_counted_and_timed_by_route_and_status(backend: Backend, before: Samples) -> None:
    for _ in range(3):
        backend.client.get("/health")
    backend.setup("<View/>")
    for path in ("/wp-login.php", "/t0ken-in-a-path"):
        backend.client.get(path)
    after = scraped(backend)

    def new(path: str, status: str) -> float:
        name = "clapboard_http_requests_total"
        return value(after, name, path=path, status=status) - value(before, name, path=path, status=status)

    assert new("/health", "200") == 3
    assert new("/setup", "422") == 1
    assert new("other", "404") == 2
    assert new("/metrics", "200") == 1
    assert value(after, "clapboard_http_request_seconds_count", path="/health") >= 3
    assert "t0ken" not in backend.client.get("/metrics").text


def test_requests_without_credentials_are_counted_too(backend: Backend, before: Samples) -> None:
    backend.client.get("/versions", auth=("ls", "wrong"))
    assert sum_of(scraped(backend), status="401") == sum_of(before, status="401") + 1


def sum_of(samples: Samples, status: str) -> float:
    name = "clapboard_http_requests_total"
    return sum(count for (found, labels), count in samples.items() if found == name and ("status", status) in labels)


def test_tasks_are_counted_by_what_was_answered(backend: Backend, installation: Installation, before: Samples) -> None:
    version = prediction.model_version(ENCODER, parse_label_config(CHOICES))
    key = AudioSources(installation.settings).key("https://host.example/1.wav")
    installation.store.predictions.put_all([StoredPrediction(70, 1, version, key, 0.5, [])], push=False)
    tasks = [{"id": number, "data": {"audio": f"https://host.example/{number}.wav"}} for number in (1, 2, 3)]
    assert [entry == [] for entry in backend.results(CHOICES, tasks, "70.1")] == [False, True, True]
    after = scraped(backend)
    for answer, count in (("predicted", 1), ("empty", 2)):
        name = "clapboard_predict_tasks_total"
        assert value(after, name, answer=answer) - value(before, name, answer=answer) == count


def test_events_are_counted_by_action_and_unknown_ones_together(backend: Backend, before: Samples) -> None:
    for action in ("ANNOTATION_CREATED", "ANNOTATION_CREATED", "MADE_UP_1", "MADE_UP_2"):
        backend.client.post("/webhook", json={"action": action, "project": {"id": 71}})
    after = scraped(backend)
    name = "clapboard_webhook_events_total"
    for action, count in (("ANNOTATION_CREATED", 2), ("other", 2)):
        assert value(after, name, action=action) - value(before, name, action=action) == count


def test_the_store_is_read_at_each_scrape(backend: Backend, installation: Installation, before: Samples) -> None:
    store = installation.store
    store.jobs.add(BATCH, [JobRequest("predict", 72, task, "v1") for task in (1, 2, 3)])
    store.jobs.record_failure(INTERACTIVE, JobRequest("predict", 72, 4, "v1"), AudioError("It is damaged."))
    store.predictions.put_all([StoredPrediction(72, task, "v1", "key", 0.5, []) for task in (5, 6)], push=False)
    store.predictions.owe(72, [5, 6], "v1")
    store.embeddings.put("0" * 64, "encoder", "float32", 0, np.ones((4, 2), np.float32))
    store.catalog.worker_alive("a worker", "mini", "cpu", "batch")
    after = scraped(backend)

    def new(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert new("clapboard_jobs", queue="batch", state="queued") == 3
    assert new("clapboard_jobs", queue="interactive", state="failed") == 1
    assert new("clapboard_failed_jobs", reason="audio") == 1
    assert new("clapboard_predictions_owed") == 2
    assert new("clapboard_embeddings") == 4
    assert new("clapboard_workers") == 1
    assert new("clapboard_queue_workers", queue="batch") == 1
    assert new("clapboard_queue_workers", queue="train") == 0
    assert 0 <= value(after, "clapboard_oldest_job_seconds", queue="batch") < 60


def test_an_empty_queue_counts_zero(backend: Backend, before: Samples) -> None:
    for queue in QUEUES:
        assert ("clapboard_oldest_job_seconds", frozenset({("queue", queue)})) in before
        assert ("clapboard_queue_workers", frozenset({("queue", queue)})) in before
        for state in State:
            assert ("clapboard_jobs", frozenset({("queue", queue), ("state", state.value)})) in before


def test_a_job_that_is_not_due_yet_has_not_waited(backend: Backend, installation: Installation) -> None:
    installation.store.jobs.add(TRAIN, [JobRequest("train", 73, delay_s=3600.0)])
    after = scraped(backend)
    assert value(after, "clapboard_jobs", queue="train", state="queued") == 1
    assert value(after, "clapboard_oldest_job_seconds", queue="train") == 0
