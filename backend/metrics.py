"""Prometheus metrics: what this process answered, and, read from the store at each scrape, what is owed."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clapboard.store import Store

WORKER_SILENT_S = 30.0


class Metrics:
    """The process's registry."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "clapboard_http_requests", "HTTP requests answered", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "clapboard_http_request_seconds", "Time to answer HTTP requests", ["path"], registry=self.registry
        )
        self.answered = Counter(
            "clapboard_predict_tasks", "Tasks in /predict, by what was answered", ["answer"], registry=self.registry
        )
        self.events = Counter("clapboard_webhook_events", "Webhook events received", ["action"], registry=self.registry)
        self.registry.register(_StoreCollector(store))


class _StoreCollector:
    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("clapboard_jobs", "Jobs by queue and state", labels=["queue", "state"])
        for (queue, state), count in self._store.jobs.counts().items():
            jobs.add_metric([queue, state.value], count)
        yield jobs
        age = GaugeMetricFamily("clapboard_oldest_job_seconds", "Age of the oldest queued job", labels=["queue"])
        for queue, age_s in self._store.jobs.oldest_queued_s().items():
            age.add_metric([queue], age_s)
        yield age
        failures = GaugeMetricFamily("clapboard_failed_jobs", "Failed jobs by reason", labels=["reason"])
        for reason, count in self._store.jobs.failures().items():
            failures.add_metric([reason], count)
        yield failures
        owed = self._store.predictions.num_owed()
        yield GaugeMetricFamily("clapboard_predictions_owed", "Predictions waiting to be pushed", owed)
        yield GaugeMetricFamily("clapboard_embeddings", "Window embeddings kept", self._store.embeddings.count())
        alive = len(self._store.catalog.workers(WORKER_SILENT_S))
        yield GaugeMetricFamily("clapboard_workers", "Workers heard of in the last 30 s", alive)

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not touch the store."""
        return []


class MeasureRequests:
    """ASGI middleware that counts and times requests, by the route's own path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            # An unknown path has no route; counting it by name would let anybody fill the memory.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)
