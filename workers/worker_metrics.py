"""A worker's Prometheus metrics: counts of its work and, read at each scrape, the memory and threads it uses."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from clapboard.errors import SettingsError
from clapboard.label_studio.tally import RequestTally

Stage = Literal["fetch", "decode", "forward", "store"]

BATCH_WINDOWS = [2**power for power in range(11)]
STAGE_S = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0]

_STATM = Path("/proc/self/statm")


class WorkerMetrics:
    """The metrics of one worker, in `registry`. Thread-safe."""

    def __init__(self, tally: RequestTally, device: torch.device, threads: Callable[[], Mapping[str, int]]) -> None:
        """`threads` returns how many threads work at each queue at the moment."""
        self.registry = CollectorRegistry()

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(name, help_text, labels, registry=self.registry)

        self._batches = Histogram(
            "clapboard_batch_windows", "Windows per forward pass", buckets=BATCH_WINDOWS, registry=self.registry
        )
        self._windows = counter("clapboard_windows", "Windows embedded")
        self._stages = Histogram(
            "clapboard_stage_seconds",
            "Seconds spent on one file or batch, by stage",
            ["stage"],
            buckets=STAGE_S,
            registry=self.registry,
        )
        self._recordings = counter(
            "clapboard_recordings", "Recordings that jobs needed: embedded now, or cached in the store", "had"
        )
        self._audio_errors = counter("clapboard_audio_errors", "Recordings that couldn't be used, by reason", "reason")
        self._jobs = counter("clapboard_ended_jobs", "Tries of jobs, by how they ended", "kind", "outcome")
        self._broker = Gauge(
            "clapboard_broker_connected", "1 while the broker delivers messages, else 0", registry=self.registry
        )
        self.registry.register(_ScrapeCollector(tally, device, threads))

    def watch_broker(self, is_connected: Callable[[], bool]) -> None:
        """Ask at each scrape whether the broker delivers messages."""
        self._broker.set_function(lambda: float(is_connected()))

    def observe_batch(self, num_windows: int) -> None:
        """Count a forward pass over this many windows."""
        self._batches.observe(num_windows)
        self._windows.inc(num_windows)

    def observe_stage(self, stage: Stage, seconds: float) -> None:
        """Count the time that a stage took for one file or batch."""
        self._stages.labels(stage).observe(seconds)

    def count_cached(self, num: int) -> None:
        """Count recordings whose embeddings were in the store already."""
        self._recordings.labels("cached").inc(num)

    def count_computed(self, num: int) -> None:
        """Count recordings that were embedded."""
        self._recordings.labels("computed").inc(num)

    def count_audio_error(self, code: str) -> None:
        """Count a recording that couldn't be used; `code` is the error's."""
        self._audio_errors.labels(code).inc()

    def count_jobs(self, kind: str, outcome: str) -> None:
        """Count a try of a job; `outcome` is a value of `project_jobs.Ending`."""
        self._jobs.labels(kind, outcome).inc()


class MetricsServer:
    """Serves a registry over HTTP, in threads of its own, until it is closed."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Raises `SettingsError` if it can't listen there."""
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise SettingsError(
                f"The worker's metrics can't be served at {host}:{port} ({error.strerror}): set"
                " CLAPBOARD_WORKER_METRICS_PORT to a free port, a different one for each worker of a machine."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _ScrapeCollector:
    """The metrics that are read at each scrape."""

    def __init__(self, tally: RequestTally, device: torch.device, threads: Callable[[], Mapping[str, int]]) -> None:
        self._tally = tally
        self._device = device
        self._threads = threads

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "clapboard_label_studio_requests",
            "Requests sent to Label Studio, retries included",
            labels=["method", "route", "code"],
        )
        for labels, count in self._tally.counts().items():
            requests.add_metric(labels, count)
        yield requests
        memory = GaugeMetricFamily(
            "clapboard_device_memory_bytes", "Memory of the model's device", labels=["device", "kind"]
        )
        for kind, num_bytes in device_memory(self._device).items():
            memory.add_metric([str(self._device), kind], num_bytes)
        yield memory
        threads = GaugeMetricFamily("clapboard_busy_threads", "Threads at work, by queue", labels=["queue"])
        for queue, num_threads in self._threads().items():
            threads.add_metric([queue], num_threads)
        yield threads


def device_memory(device: torch.device, cuda: Any = torch.cuda) -> dict[str, int]:
    """Bytes by kind.

    On CUDA: in tensors (`allocated`), kept by torch (`reserved`), on the device (`total`). On a CPU, on Linux: held by
    the process (`resident`).
    """
    if device.type == "cuda":
        _, total = cuda.mem_get_info(device)
        used = {"allocated": cuda.memory_allocated(device), "reserved": cuda.memory_reserved(device)}
        return used | {"total": total}
    if not _STATM.exists():
        return {}
    _, num_pages, *_ = _STATM.read_text().split()
    return {"resident": int(num_pages) * resource.getpagesize()}
