"""The worker process: one Celery worker with a thread pool, one encoder loaded once, one process per GPU.

Threads, not forks: CUDA doesn't survive a fork. One thread decodes while another's windows are in the forward pass, and
each queue has threads of its own, so that whoever opens a task, or accepts one, doesn't wait behind a whole project.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
import warnings
from collections import deque
from collections.abc import Sequence

import torch
from celery import Celery
from celery.beat import EmbeddedService, Scheduler
from celery.exceptions import SecurityWarning
from celery.schedules import crontab, schedule
from celery.signals import worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from clapboard.clap import ClapEncoder
from clapboard.encoder import load_encoder
from clapboard.errors import InternalError
from clapboard.jobs import BATCH, INTERACTIVE, LEARN, QUEUES, RING, SEARCH, TRAIN, CeleryBell, make_celery
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.tally import RequestTally
from clapboard.logs import about
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest
from workers.chores import ENDINGS, Chores
from workers.embed import EmbeddingStage
from workers.encoders import EncoderPool, announce
from workers.finetune import Finetuner
from workers.heads import Heads
from workers.metrics import MetricsServer, WorkerMetrics
from workers.pipeline import Pipeline, unforeseen
from workers.predict import PredictJobs
from workers.promote import Promoter
from workers.push import Pusher
from workers.refit import Refitter
from workers.rollout import Rollout
from workers.search import Searcher

THREADS = {INTERACTIVE: 2, SEARCH: 2, LEARN: 1, BATCH: 2, TRAIN: 1}
"""How many threads may be at a queue."""

ALL_PROJECTS = "clapboard.all-projects"
TICK_S = 1.0
BEATS_PER_LEASE = 5
LAST_PUSH_S = 5.0

_STORE_AWAY = "the store can't be reached (%s); trying again"

log = logging.getLogger(__name__)


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES) -> None:
    """Serve the queues until the process is told to stop.

    Raises `ModelError` if the model can't be loaded and `SettingsError` if the store can't be opened, or the metrics'
    port not be had.
    """
    encoder = load_encoder(settings)
    store = Store.open(settings)
    worker = Worker(settings, store, encoder, queues)
    app = make_celery(settings, queues=queues)
    app.task(worker.drain, name=RING, acks_late=True, ignore_result=True)
    app.task(worker.ask_for_all, name=ALL_PROJECTS, ignore_result=True)
    app.conf.beat_schedule = beat_schedule(settings, worker.queues)
    worker_shutting_down.connect(worker.stop, weak=False)
    # A thread: a forked process would take CUDA along. Several workers' beats ask for the same jobs, which are one.
    beat = EmbeddedService(app, thread=True, scheduler_cls=Scheduler, max_interval=60)
    try:
        worker.start()
        beat.start()
        try:
            _serve(app, worker, settings)
        finally:
            beat.stop()
    finally:
        worker.close()


def beat_schedule(settings: Settings, queues: Sequence[str]) -> dict[str, dict[str, object]]:
    """What Celery's beat asks for, of the queues that this worker serves."""
    planned: dict[str, dict[str, object]] = {}
    if settings.sync_s and LEARN in queues:
        planned["sync"] = _for_all(LEARN, "sync") | {"schedule": schedule(settings.sync_s)}
    if settings.train_schedule and TRAIN in queues:
        minute, hour, day_of_month, month_of_year, day_of_week = settings.train_schedule.split()
        when = crontab(minute, hour, day_of_week, day_of_month, month_of_year)
        planned["train"] = _for_all(TRAIN, "train") | {"schedule": when}
    return planned


def _for_all(queue: str, kind: str) -> dict[str, object]:
    return {"task": ALL_PROJECTS, "args": [queue, kind], "options": {"queue": queue, "expires": 60}}


def _serve(app: Celery, worker: Worker, settings: Settings) -> None:
    # Celery warns of root because of pickle, which this app doesn't accept.
    warnings.simplefilter("ignore", SecurityWarning)
    app.Worker(
        hostname=worker.name,
        pool="threads",
        concurrency=sum(THREADS[queue] for queue in worker.queues),
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
        tally = RequestTally()
        has_token = bool(settings.label_studio_api_key.get_secret_value())
        self._client = LabelStudioClient(settings, tally=tally) if has_token else None
        self._metrics = WorkerMetrics(tally, encoder.device, self._busy_threads)
        self._metrics_server: MetricsServer | None = None
        self._pusher = Pusher(store, self._client, lease_s=settings.job_lease_s) if self._client else None
        heads = Heads(store)
        encoders = EncoderPool(encoder, lambda name: load_encoder(settings, name), capacity=settings.encoders)
        rollout = Rollout(settings, store, encoders, heads, self._bell, self._client, self._pusher)
        self._stopping = threading.Event()
        self._owed = threading.Event()
        self._pipeline = Pipeline(
            store, self._metrics, num_decoders=torch.get_num_threads(), batch_size=encoder.batch_size
        )
        sources = AudioSources(settings)
        self._stage = EmbeddingStage(store, sources, self._pipeline, self._metrics)
        self._predict_jobs = PredictJobs(store, self._stage, encoders, heads, on_owed=self._owed.set)
        self._chores = Chores(
            settings,
            store,
            self._client,
            self._bell,
            Refitter(settings, store, encoders, heads, rollout),
            Promoter(settings, store, encoders, rollout),
            Finetuner(settings, store, self._stopping),
            Searcher(settings, store, sources, encoders),
        )
        self._turns = {queue: threading.BoundedSemaphore(THREADS[queue]) for queue in self.queues}
        self._draining: list[str] = []
        self._broken_off: deque[tuple[Sequence[Job], InternalError]] = deque()
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._others = [threading.Thread(target=run, daemon=True) for run in (self._look_for_work, self._push)]

    def drain(self, queue: str) -> None:
        """Work until the queue is empty. A queue that has all its threads already is left to them."""
        if not self._turns[queue].acquire(blocking=False):
            return
        self._draining.append(queue)
        try:
            self._work_off(queue)
        except SQLAlchemyError as error:
            log.warning(_STORE_AWAY, type(error).__name__)
        finally:
            self._draining.remove(queue)
            self._turns[queue].release()

    def ask_for_all(self, queue: str, kind: str) -> None:
        """Queue a job of the kind for every connected project."""
        requests = [JobRequest(kind, project) for project in self._store.catalog.connected_projects()]
        if requests:
            self._store.jobs.add(queue, requests)
            self._bell.ring(queue)

    def start(self) -> None:
        """Announce the encoder: from now on the backend can name the model version.

        Raises `SettingsError` if the metrics' port can't be had.
        """
        if self._settings.worker_metrics_port:
            host, port = self._settings.host, self._settings.worker_metrics_port
            self._metrics_server = MetricsServer(self._metrics.registry, host, port)
        announce(self._store, self._encoder)
        if LEARN in self.queues and self._client is not None:
            self.ask_for_all(LEARN, "sync")
        for thread in (self._heart, *self._others):
            thread.start()
        if self._pusher is None:
            log.warning("LABEL_STUDIO_API_KEY is not set: predictions that come too late for an answer can't be pushed")
        log.info("serving %s with %s on %s", ", ".join(self.queues), self._encoder.identity.model, self._encoder.device)

    def stop(self, **_: object) -> None:
        """Finish the batches in hand and claim no more."""
        self._stopping.set()
        self._owed.set()

    def close(self) -> None:
        """Sign off."""
        self.stop()
        for thread in self._others:
            if thread.is_alive():
                thread.join(LAST_PUSH_S)
        self._closed.set()
        if self._heart.is_alive():
            self._heart.join()  # a last beat after signing off would bring the worker back
        self._stage.close()
        self._pipeline.close()
        if self._client is not None:
            self._client.close()
        if self._metrics_server is not None:
            self._metrics_server.close()
        self._store.catalog.worker_gone(self.name)
        self._store.close()

    def _busy_threads(self) -> dict[str, int]:
        """How many threads are at each queue."""
        return {queue: self._draining.count(queue) for queue in self.queues}

    def _work_off(self, queue: str) -> None:
        while not self._stopping.is_set():
            # Chores come one by one, so that no other worker waits for what this one hasn't begun.
            at_once = self._encoder.batch_size if queue in (INTERACTIVE, BATCH) else 1
            jobs = self._store.jobs.claim(self.name, queue, at_once, together="predict")
            if not jobs:
                return
            if len(jobs) == at_once > 1:  # there may be more: another thread, or worker, needn't wait for its next look
                self._bell.ring(queue)
            try:
                self._run(jobs)
            except Exception as error:  # most likely the store's, so that the jobs can't be given back right now
                self._broken_off.append((jobs, unforeseen("working on a batch", error)))
                return

    def _run(self, jobs: Sequence[Job]) -> None:
        predict = [job for job in jobs if job.kind == "predict"]
        with about(**_shared_subject(predict)):
            self._predict_jobs.run(predict)
        for state in self._store.jobs.states([job.id for job in predict]).values():
            if state in ENDINGS:  # else it was lost to another worker, for which it runs
                self._metrics.count_jobs("predict", ENDINGS[state])
        for job in jobs:
            if job.kind != "predict":
                self._metrics.count_jobs(job.kind, self._chores.run(job))

    def _beat(self) -> None:
        """To the very end, several times a lease: say that this worker and its jobs live, and take over lost ones."""
        while not self._closed.wait(min(TICK_S, self._settings.job_lease_s / BEATS_PER_LEASE)):
            try:
                self._store.jobs.heartbeat(self.name)
                self._store.catalog.worker_alive(
                    self.name, self._encoder.identity.model, str(self._encoder.device), ",".join(self.queues)
                )
                self._store.jobs.requeue_lost(self._settings.job_lease_s)
                self._give_back()
            except SQLAlchemyError as error:
                log.warning(_STORE_AWAY, type(error).__name__)

    def _give_back(self) -> None:
        """Queue the jobs again that a batch left running when it broke off."""
        while self._broken_off:
            jobs, error = self._broken_off[0]
            for job in jobs:
                self._metrics.count_jobs(job.kind, ENDINGS[self._store.jobs.fail(job, error)])
            self._broken_off.popleft()

    def _look_for_work(self) -> None:
        """Every second: ring bells again that got lost, and work without them where the broker is away."""
        while not self._stopping.wait(TICK_S):
            try:
                waiting = self._store.jobs.queues_with_work(self.queues)
            except SQLAlchemyError as error:
                log.warning(_STORE_AWAY, type(error).__name__)
                continue
            rings = True
            for queue in waiting:
                if self._draining.count(queue) < THREADS[queue]:
                    rings = rings and self._bell.ring(queue)
                    if not rings:
                        threading.Thread(target=self.drain, args=[queue], daemon=True).start()

    def _push(self) -> None:
        """Whenever something is owed, and every second for what was put off or left by another worker."""
        while not self._stopping.is_set():
            self._owed.wait(TICK_S)
            self._owed.clear()
            try:
                if self._pusher is not None:
                    self._pusher.push_owed()
            except SQLAlchemyError as error:
                log.warning(_STORE_AWAY, type(error).__name__)
            except Exception as error:  # this thread must outlive whatever Label Studio answers
                unforeseen("pushing", error)


def _shared_subject(jobs: Sequence[Job]) -> dict[str, int | str]:
    """What all the jobs are about."""
    subjects = [job.subject.items() for job in jobs]
    return dict(set(subjects[0]).intersection(*subjects[1:])) if subjects else {}
