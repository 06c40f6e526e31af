"""Prometheus metrics: what this process has answered, and what the store holds, read at each scrape."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clapboard.queue.celery_app import QUEUES
from clapboard.store import Store
from clapboard.store.jobs import State

WORKER_SILENT_S = 30.0


class Metrics:
    """This process's registry and the counters in it."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, help_text: str, *labels: str) -> prometheus_client.Counter:
            return prometheus_client.Counter(name, help_text, labels, registry=self.registry)

        self.requests = counter("clapboard_http_requests", "HTTP requests answered", "path", "status")
        self.seconds = Histogram(
            "clapboard_http_request_seconds", "Time to answer HTTP requests", ["path"], registry=self.registry
        )
        self.answered = counter(
            "clapboard_predict_tasks", "Tasks in /predict requests, by what was answered: predicted or empty", "answer"
        )
        self.events = counter("clapboard_webhook_events", "Webhook events received", "action")
        self.registry.register(_StoreCollector(store))


class _StoreCollector:
    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        yield from self._queues()
        failures = GaugeMetricFamily("clapboard_failed_jobs", "Failed jobs, by error code", labels=["reason"])
        for reason, count in self._store.jobs.failures().items():
            failures.add_metric([reason], count)
        yield failures
        owed = self._store.predictions.num_owed()
        yield GaugeMetricFamily("clapboard_predictions_owed", "Predictions waiting to be pushed", owed)
        yield GaugeMetricFamily(
            "clapboard_embeddings", "Windows with a stored embedding", self._store.embeddings.count()
        )

    def _queues(self) -> Iterator[Metric]:
        """Every queue and state, those with 0 included: an alert can't watch a sample that is missing."""
        counts = self._store.jobs.counts()
        jobs = GaugeMetricFamily("clapboard_jobs", "Jobs, by queue and state", labels=["queue", "state"])
        for queue, state in itertools.product(QUEUES, State):
            jobs.add_metric([queue, state.value], counts.get((queue, state), 0))
        yield jobs
        oldest_s = self._store.jobs.oldest_queued_s()
        age = GaugeMetricFamily(
            "clapboard_oldest_job_seconds",
            "Seconds that the oldest job which is due has waited, by queue",
            labels=["queue"],
        )
        for queue in QUEUES:
            age.add_metric([queue], oldest_s.get(queue, 0.0))
        yield age
        alive = self._store.catalog.workers(WORKER_SILENT_S)
        yield GaugeMetricFamily("clapboard_workers", "Workers that sent a heartbeat in the last 30 s", len(alive))
        served = Counter(queue for worker in alive for queue in worker.queues.split(","))
        serving = GaugeMetricFamily(
            "clapboard_queue_workers",
            "Workers that serve the queue, of those that sent a heartbeat in the last 30 s",
            labels=["queue"],
        )
        for queue in QUEUES:
            serving.add_metric([queue], served[queue])
        yield serving

    def describe(self) -> list[Metric]:
        """Nothing: without this, registering would collect once, from the store."""
        return []


class MeasureRequests:
    """ASGI middleware that counts and times requests by the path of their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            # Paths without a route are counted as «other»: by name, any caller could fill the memory with them.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)
