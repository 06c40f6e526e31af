"""The worker process: one Celery worker with a thread pool, one encoder loaded once, one process per GPU.

Threads, not forks: CUDA doesn't survive a fork. One thread decodes while another's windows are in the forward pass.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Sequence
from contextlib import ExitStack

from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.tally import RequestTally
from clapboard.model.clap import ClapEncoder
from clapboard.model.load import load_encoder
from clapboard.queue.celery_app import BATCH, QUEUES, WAKE_UP, CeleryWaker, make_celery
from clapboard.settings import Settings
from clapboard.settings.state_folder import make_state_folder
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.retention import Retention
from workers.background import Background, Pushing, QueuePolling
from workers.celery_consumer import CeleryConsumer, stop_on_signals
from workers.heartbeat import Heartbeat
from workers.job_kinds import make_job_runner
from workers.planner import Planner
from workers.presence import Presence
from workers.push import Pusher
from workers.queue_threads import QueueThreads
from workers.store_outages import StoreOutages
from workers.worker_metrics import MetricsServer, WorkerMetrics

AUDIO_FAILURES_BY_SETTINGS = ("source_refused", "source_too_large", "audio_too_long", "timed_out")
"""Failures of audio that depend on settings, which may have changed when a worker starts."""

log = logging.getLogger(__name__)


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES) -> None:
    """Serve the queues until the process is told to stop.

    Raises `ModelError` if the model can't be loaded, `SettingsError` if the store or the metrics' port can't be opened,
    `StoreError` if the store is away at the start or damaged at any time, and `KeyboardInterrupt` after Ctrl-C, once
    everything is closed.
    """
    make_state_folder(settings.model_dir)
    encoder = load_encoder(settings)
    store = Store.open(settings)
    worker = WorkerProcess(settings, store, encoder, queues)
    app = make_celery(settings, queues=queues)
    app.task(worker.threads.wake, name=WAKE_UP, ignore_result=True)
    consumer = CeleryConsumer(app, worker.name, worker.queues, settings.log_level, worker.stopping)
    worker.metrics.watch_broker(lambda: consumer.is_connected)
    interrupted = stop_on_signals(worker.stop)
    try:
        worker.start()
        consumer.run()
    finally:
        worker.close()
    if worker.outages.damage:
        raise worker.outages.damage
    if interrupted.is_set():
        raise KeyboardInterrupt


class WorkerProcess:
    """Everything in a worker but Celery: its parts are made here, started in order and closed in order."""

    def __init__(self, settings: Settings, store: Store, encoder: ClapEncoder, queues: Sequence[str]) -> None:
        self.name = f"clapboard-{os.getpid()}-{uuid.uuid4().hex[:6]}@{socket.gethostname()}"
        self.queues = [queue for queue in QUEUES if queue in queues]
        self.stopping = threading.Event()
        self.outages = StoreOutages()
        self._settings = settings
        self._store = store
        self._presence = Presence(store, self.name, self.queues, encoder)
        has_token = bool(settings.label_studio_api_key.get_secret_value())
        tally = RequestTally()
        self.metrics = WorkerMetrics(tally, encoder.device, lambda: self.threads.num_busy())
        self._open = ExitStack()  # what is closed last
        self._open.callback(store.close)
        client = self._open.enter_context(LabelStudioClient(settings, tally=tally)) if has_token else None
        pusher = Pusher(store, client, lease_s=settings.job_lease_s) if client else None
        pushing = Pushing(pusher, self.stopping, self.outages.report)
        waker = CeleryWaker(make_celery(settings))
        self.jobs = make_job_runner(
            settings, store, encoder, self.name, waker, self.metrics, self.stopping, client, pusher, pushing.owed
        )
        self.threads = QueueThreads(self.queues, self.jobs.work_off, self.outages.report)
        planner = Planner(settings, store, waker, self.queues, has_token=has_token)
        self._background = Background(
            Heartbeat(store, self.name, settings.job_lease_s, self._presence, self.jobs, self.outages.report),
            QueuePolling(
                store,
                planner,
                self.threads,
                self.queues,
                self.jobs.encoders,
                self.stopping,
                self.outages.report,
                Retention(store.database, store.clock, settings.keep_days),
            ),
            pushing,
        )

    def start(self) -> None:
        """Become known in the store, queue what is due, and start the threads.

        Raises `SettingsError` if the metrics' port can't be had.
        """
        if self._settings.worker_metrics_port:
            host, port = self._settings.host, self._settings.worker_metrics_port
            self._open.enter_context(MetricsServer(self.metrics.registry, host, port))
        self._presence.begin()
        self._store.audio_failures.forget_kinds(AUDIO_FAILURES_BY_SETTINGS)
        if self._store.embeddings.has_unread():
            projects = self._store.catalog.connected_projects()
            self._store.jobs.add(BATCH, [JobRequest("reread", project) for project in projects])
        self._background.start()
        if not self._settings.label_studio_api_key.get_secret_value():
            log.warning("LABEL_STUDIO_API_KEY is not set: predictions that come too late for an answer can't be pushed")
        log.info("serving %s with %s", ", ".join(self.queues), self._presence)

    def stop(self) -> None:
        """Claim no more jobs. Those that are running go on."""
        self.stopping.set()
        self._background.wake()

    def close(self) -> None:
        """Finish the running jobs, sign off, and close everything."""
        self.stop()
        if any(self.threads.num_busy().values()):
            log.info("stopping as soon as the running jobs are finished")
        self.threads.wait_until_idle()
        self._background.join()
        self.jobs.close()
        self._presence.sign_off()
        self._open.close()
