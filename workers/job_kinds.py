"""How a worker runs a job of each kind: the parts put together."""

from __future__ import annotations

import threading

import torch

from clapboard.installation.public_address import audio_sources
from clapboard.label_studio.client import LabelStudioClient
from clapboard.model.clap import ClapEncoder
from clapboard.model.load import load_encoder
from clapboard.project.lock import ProjectLocks
from clapboard.queue.celery_app import Waker
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.job_records import claimable
from workers.canaries import Canaries
from workers.changed_suggestions import ChangedSuggestions
from workers.encoder_pool import EncoderPool
from workers.finetuner import Finetuner
from workers.head_cache import HeadCache
from workers.job_embedder import JobEmbedder
from workers.job_queue import JobQueue
from workers.job_runner import JobRunner
from workers.label_studio_jobs import LabelStudioJobs
from workers.learning_jobs import LearningJobs
from workers.pipeline import Pipeline
from workers.predict_jobs import PredictJobs
from workers.project_jobs import ProjectJobs
from workers.promote import Promoter
from workers.pruning import Pruner
from workers.push import Pusher
from workers.refit import Refitter
from workers.rollout import Rollout
from workers.rollout_pages import RolloutPages
from workers.rollout_plan import RolloutPlanner
from workers.search_jobs import SearchJobs
from workers.shown_version import ShownVersion
from workers.sweep import Sweeper
from workers.worker_metrics import WorkerMetrics


def make_job_runner(
    settings: Settings,
    store: Store,
    encoder: ClapEncoder,
    worker: str,
    waker: Waker,
    metrics: WorkerMetrics,
    stopping: threading.Event,
    client: LabelStudioClient | None,
    pusher: Pusher | None,
    owed: threading.Event,
) -> JobRunner:
    """What runs the jobs of the worker with that name. It sets `owed` when predictions have to be pushed.

    Without a token there is neither client nor pusher.
    """
    identity = encoder.identity
    sources = audio_sources(settings, store)
    heads = HeadCache(store)
    encoders = EncoderPool(encoder, lambda name: load_encoder(settings, name), capacity=settings.encoders)
    pipeline = Pipeline(
        store,
        metrics,
        num_decoders=torch.get_num_threads(),
        batch_size=encoder.batch_size,
        longest_s=settings.max_audio_s,
        timeout_s=settings.job_timeout_s,
    )
    embedder = JobEmbedder(store, sources, pipeline, metrics, timeout_s=settings.job_timeout_s)
    return JobRunner(
        store,
        worker,
        PredictJobs(store, embedder, encoders, heads, on_owed=owed.set),
        make_project_jobs(settings, store, worker, sources, encoders, heads, waker, client, pusher, stopping),
        metrics,
        waker,
        stopping,
        batch_size=encoder.batch_size,
        encoders=claimable(identity.model, identity.version, identity.dtype),
        keeps_tabs=client is not None,
    )


def make_project_jobs(
    settings: Settings,
    store: Store,
    worker: str,
    sources: AudioSources,
    encoders: EncoderPool,
    heads: HeadCache,
    waker: Waker,
    client: LabelStudioClient | None,
    pusher: Pusher | None,
    stopping: threading.Event,
) -> ProjectJobs:
    """The project jobs of the worker with that name. Without a token there is neither client nor pusher."""
    queue = JobQueue(store, waker)
    locks = ProjectLocks(store, worker, settings.job_lease_s)
    shown = ShownVersion(settings, store, client)
    planner = RolloutPlanner(settings, store, encoders, heads, shown, client)
    pages, changed = RolloutPages(store, waker, pusher), ChangedSuggestions(store, client, pusher)
    rollout = Rollout(settings, store, locks, planner, pages, shown, changed)
    sweeper = Sweeper(store, queue, planner, pages, changed)
    canaries = Canaries(settings, store, encoders, heads, waker)
    learning_jobs = LearningJobs(
        settings,
        store,
        client,
        queue,
        Refitter(settings, store, encoders, heads, rollout, canaries),
        Promoter(settings, store, encoders, rollout),
        Pruner(settings, store, locks, shown, client),
        Finetuner(settings, store, stopping),
        canaries,
    )
    label_studio_jobs = LabelStudioJobs(settings, store, client, waker)
    searches = SearchJobs(settings, store, sources, encoders)
    kinds = learning_jobs.kinds | label_studio_jobs.kinds | {"search": searches.run, "sweep": sweeper.run}
    return ProjectJobs(store, queue, locks, kinds)
