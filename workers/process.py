"""The worker process: one Celery worker with a thread pool, one encoder loaded once, one process per GPU.

Threads, not forks: CUDA doesn't survive a fork. One thread decodes while another's windows are in the forward pass, and
one thread is always kept free of batch work, so that whoever opens a task doesn't wait behind a whole project.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
import warnings
from collections.abc import Sequence

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_ready, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from clapboard.clap import ClapEncoder
from clapboard.jobs import INTERACTIVE, QUEUES, RING, CeleryBell, make_celery
from clapboard.label_studio.client import LabelStudioClient
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import Job
from workers.batch import PredictJobs
from workers.chores import Chores
from workers.embed import EmbeddingStage
from workers.push import Pusher

BATCH_THREADS = 2
TICK_S = 1.0

log = logging.getLogger(__name__)


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES) -> None:
    """Serve the queues until the process is told to stop.

    Raises `ModelError` if the model can't be loaded and `SettingsError` if the store can't be opened.
    """
    encoder = ClapEncoder.load(
        settings.model, device=settings.device, dtype=settings.dtype, batch_size=settings.batch_size
    )
    store = Store.open(settings)
    worker = Worker(settings, store, encoder, queues)
    app = make_celery(settings, queues=queues)
    app.task(worker.drain, name=RING, acks_late=True, ignore_result=True)
    worker_ready.connect(worker.start, weak=False)
    worker_shutting_down.connect(worker.stop, weak=False)
    try:
        _serve(app, worker, settings)
    finally:
        worker.close()


def _serve(app: Celery, worker: Worker, settings: Settings) -> None:
    # Celery warns of root because of pickle, which this app doesn't accept.
    warnings.simplefilter("ignore", SecurityWarning)
    app.Worker(
        hostname=worker.name,
        pool="threads",
        concurrency=BATCH_THREADS + 1,
        queues=worker.queues,
        loglevel=settings.log_level,
        redirect_stdouts=False,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    ).start()


class Worker:
    """What the process does when a bell rings, and every second."""

    def __init__(self, settings: Settings, store: Store, encoder: ClapEncoder, queues: Sequence[str]) -> None:
        self.name = f"clapboard-{os.getpid()}-{uuid.uuid4().hex[:6]}@{socket.gethostname()}"
        self.queues = [queue for queue in QUEUES if queue in queues]
        self._settings = settings
        self._store = store
        self._encoder = encoder
        self._bell = CeleryBell(make_celery(settings))
        client = LabelStudioClient(settings) if settings.label_studio_api_key.get_secret_value() else None
        self._pusher = Pusher(store, client, lease_s=settings.job_lease_s) if client else None
        stage = EmbeddingStage(store, AudioSources(settings), encoder)
        self._owed = threading.Event()
        self._predict_jobs = PredictJobs(store, stage, encoder, on_owed=self._owed.set)
        self._chores = Chores(settings, store, client, self._bell)
        self._batch_turns = threading.BoundedSemaphore(BATCH_THREADS)
        self._draining: list[str] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._tick, self._push)]

    def drain(self, queue: str) -> None:
        """Work until the queue is empty. A queue that two threads are at already is left to them."""
        if queue != INTERACTIVE and not self._batch_turns.acquire(blocking=False):
            return
        self._draining.append(queue)
        try:
            self._work_off(queue)
        finally:
            self._draining.remove(queue)
            if queue != INTERACTIVE:
                self._batch_turns.release()

    def start(self, **_: object) -> None:
        """Announce the encoder: from now on the backend can name the model version."""
        identity = self._encoder.identity
        self._store.catalog.announce_encoder(
            Encoder(identity.model, identity.version, identity.dtype, identity.dim, identity.logit_scale)
        )
        for thread in self._threads:
            thread.start()
        log.info("serving %s with %s on %s", ", ".join(self.queues), identity.model, self._encoder.device)

    def stop(self, **_: object) -> None:
        """Finish the batches in hand and claim no more."""
        self._stopping.set()
        self._owed.set()

    def close(self) -> None:
        """Sign off."""
        self.stop()
        self._store.catalog.worker_gone(self.name)
        self._store.close()

    def _work_off(self, queue: str) -> None:
        while not self._stopping.is_set():
            jobs = self._store.jobs.claim(self.name, queue, self._settings.batch_size)
            if not jobs:
                return
            self._run(jobs)

    def _run(self, jobs: Sequence[Job]) -> None:
        self._predict_jobs.run([job for job in jobs if job.kind == "predict"])
        for job in jobs:
            if job.kind != "predict":
                self._chores.run(job)

    def _tick(self) -> None:
        """Every second: say that this worker and its jobs live, take over lost ones, and hear bells that got lost."""
        while not self._stopping.wait(TICK_S):
            try:
                self._store.jobs.heartbeat(self.name)
                self._store.catalog.worker_alive(
                    self.name, self._encoder.identity.model, str(self._encoder.device), ",".join(self.queues)
                )
                self._store.jobs.requeue_lost(self._settings.job_lease_s)
                for queue in self._store.jobs.queues_with_work(self.queues):
                    if queue not in self._draining:
                        self._bell.ring(queue)
            except SQLAlchemyError as error:
                log.warning("the store can't be reached (%s); trying again", type(error).__name__)

    def _push(self) -> None:
        """Whenever something is owed, and every second for what was put off or left by another worker."""
        while not self._stopping.is_set():
            self._owed.wait(TICK_S)
            self._owed.clear()
            try:
                if self._pusher is not None:
                    self._pusher.push_owed()
            except SQLAlchemyError as error:
                log.warning("the store can't be reached (%s); trying again", type(error).__name__)
