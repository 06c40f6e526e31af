"""A worker's metrics, scraped as Prometheus does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from prometheus_client import CollectorRegistry

from clapboard.errors import SettingsError
from clapboard.label_studio.tally import RequestTally
from clapboard.queue.celery_app import QUEUES, TRAIN
from clapboard.store.jobs import JobRequest
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.metric_samples import Samples, samples, value
from tests.support.processes import Installation
from tests.support.programs import free_port
from tests.support.waiting import wait_for
from tests.workers.conftest import World
from workers.process import WorkerProcess
from workers.worker_metrics import MetricsServer, WorkerMetrics, device_memory

CPU = torch.device("cpu")


def scraped(port: int) -> Samples:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    assert answer.status_code == 200
    return samples(answer.text)


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics(RequestTally(), CPU, lambda: {"batch": 2})


def read(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


class TestWhatIsObserved:
    def test_windows_are_counted_and_batches_sorted_by_size(self, metrics: WorkerMetrics) -> None:
        for num_windows in (1, 16, 17):
            metrics.observe_batch(num_windows)
        assert read(metrics, "clapboard_windows_total") == 34
        assert read(metrics, "clapboard_batch_windows_bucket", le="16.0") == 2
        assert read(metrics, "clapboard_batch_windows_count") == 3

    def test_each_stage_has_its_times(self, metrics: WorkerMetrics) -> None:
        metrics.observe_stage("fetch", 2.0)
        metrics.observe_stage("fetch", 0.5)
        metrics.observe_stage("forward", 0.02)
        assert read(metrics, "clapboard_stage_seconds_sum", stage="fetch") == 2.5
        assert read(metrics, "clapboard_stage_seconds_bucket", stage="forward", le="0.03") == 1
        assert read(metrics, "clapboard_stage_seconds_count", stage="store") is None

    def test_recordings_errors_and_jobs_are_counted_by_kind(self, metrics: WorkerMetrics) -> None:
        metrics.count_cached(3)
        metrics.count_computed(2)
        metrics.count_audio_error("source_unavailable")
        metrics.count_jobs("predict", "done")
        assert read(metrics, "clapboard_recordings_total", had="cached") == 3
        assert read(metrics, "clapboard_recordings_total", had="computed") == 2
        assert read(metrics, "clapboard_audio_errors_total", reason="source_unavailable") == 1
        assert read(metrics, "clapboard_ended_jobs_total", kind="predict", outcome="done") == 1

    def test_threads_lose_no_count(self, metrics: WorkerMetrics) -> None:
        def work() -> None:
            for _ in range(500):
                metrics.observe_batch(2)
                metrics.count_cached(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read(metrics, "clapboard_windows_total") == 4000
        assert read(metrics, "clapboard_recordings_total", had="cached") == 2000

    def test_two_workers_of_one_process_share_nothing(self, metrics: WorkerMetrics) -> None:
        other = WorkerMetrics(RequestTally(), CPU, dict)
        metrics.observe_batch(1)
        assert read(other, "clapboard_windows_total") == 0


class TestWhatIsLookedUp:
    def test_requests_to_label_studio_by_code(self) -> None:
        tally = RequestTally()
        metrics = WorkerMetrics(tally, CPU, dict)
        for code in ("200", "200", "503"):
            tally.add("GET", "/api/tasks/7", code)
        name, subject = "clapboard_label_studio_requests_total", {"method": "GET", "route": "/api/tasks/{id}"}
        assert read(metrics, name, code="200", **subject) == 2
        assert read(metrics, name, code="503", **subject) == 1

    def test_threads_by_queue(self, metrics: WorkerMetrics) -> None:
        assert read(metrics, "clapboard_busy_threads", queue="batch") == 2

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it there")
    def test_on_a_cpu_the_processs_memory(self, metrics: WorkerMetrics) -> None:
        def resident() -> float:
            return read(metrics, "clapboard_device_memory_bytes", device="cpu", kind="resident") or 0.0

        before = resident()
        held = b"x" * 200_000_000
        assert 50_000_000 < before < before + 150_000_000 < resident()
        del held

    def test_on_cuda_what_tensors_hold_what_torch_keeps_and_what_there_is(self) -> None:
        class Cuda:
            mem_get_info = staticmethod(lambda device: (5, {"cuda:1": 80}[str(device)]))
            memory_allocated = staticmethod(lambda device: {"cuda:1": 20}[str(device)])
            memory_reserved = staticmethod(lambda device: {"cuda:1": 30}[str(device)])

        assert device_memory(torch.device("cuda:1"), Cuda()) == {"allocated": 20, "reserved": 30, "total": 80}


class TestServing:
    def test_a_port_that_is_taken_is_told_with_the_setting_that_chooses_it(self) -> None:
        port = free_port()
        with (
            MetricsServer(CollectorRegistry(), "127.0.0.1", port),
            pytest.raises(SettingsError, match=f"127.0.0.1:{port}.*CLAPBOARD_WORKER_METRICS_PORT"),
        ):
            MetricsServer(CollectorRegistry(), "127.0.0.1", port)
        MetricsServer(CollectorRegistry(), "127.0.0.1", port).close()  # free again

    def test_a_worker_serves_while_it_runs_and_only_if_it_is_told_to(self, world: World) -> None:
        port = free_port()
        for chosen in (0, port):
            settings = world.settings.with_overrides(worker_metrics_port=chosen)
            worker = WorkerProcess(settings, World(settings.model_dir, world.audio).store, world.encoder, QUEUES)  # type: ignore[arg-type]
            worker.start()
            if chosen:
                assert value(scraped(port), "clapboard_busy_threads", queue=TRAIN) == 0
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"http://127.0.0.1:{free_port() if chosen else port}", trust_env=False)
            worker.close()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}", trust_env=False)


class TestARealWorker:
    @pytest.fixture
    def label_studio(self) -> Iterator[FakeLabelStudio]:
        with FakeLabelStudio() as server:
            yield server

    def test_its_metrics_change_with_its_jobs(
        self, tmp_path: Path, audio: AudioServer, label_studio: FakeLabelStudio, tiny_clap: Path
    ) -> None:
        port = free_port()
        settings = {"label_studio_url": label_studio.url, "label_studio_api_key": TOKEN, "allow_private_urls": True}
        label_studio.add_tasks(7, audio.task(1), audio.task(2, "corrupt/a.wav"))
        with Installation(tmp_path, tiny_clap, **settings) as house:
            house.worker(worker_metrics_port=port)
            before = scraped(port)
            assert not any(name == "clapboard_ended_jobs_total" for name, _ in before)
            house.store.catalog.put_project(7, CHOICES, "v1")
            house.store.jobs.add("batch", [JobRequest("prelabel", 7)])
            house.store.jobs.add("learn", [JobRequest("unheard-of", 7)])

            def ended(kind: str, outcome: str) -> float:
                return value(scraped(port), "clapboard_ended_jobs_total", kind=kind, outcome=outcome)

            wait_for(lambda: ended("predict", "done") and ended("predict", "failed"), "no predict job was counted")
            assert (ended("prelabel", "done"), ended("predict", "done"), ended("predict", "failed")) == (1, 1, 1)
            wait_for(lambda: ended("unheard-of", "failed"), "the job wasn't counted")
            asked = {"method": "GET", "route": "/api/tasks", "code": "200"}
            assert value(scraped(port), "clapboard_label_studio_requests_total", **asked) >= 1
