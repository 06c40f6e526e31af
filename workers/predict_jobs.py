"""`predict` jobs: embed a batch's recordings, score them, and end every job as done or failed, each alone."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.exc import SQLAlchemyError

from clapboard.errors import ClapboardError, InternalError, StoreError
from clapboard.logs import about
from clapboard.model.clap import ClapEncoder, Embeddings
from clapboard.queue.celery_app import PredictPayload
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import Job
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest import prediction
from workers.encoder_pool import EncoderPool
from workers.head_cache import HeadCache
from workers.job_embedder import EmbeddedJob, JobEmbedder
from workers.unexpected import unexpected_error

HELD_OUT = "It was embedded, but gets no suggestion: its recording is held out to judge models by."

log = logging.getLogger(__name__)


class PredictJobs:
    """Runs claimed `predict` jobs to their stored predictions. Threads share it."""

    def __init__(
        self,
        store: Store,
        embedder: JobEmbedder,
        encoders: EncoderPool,
        heads: HeadCache,
        *,
        on_owed: Callable[[], None],
    ) -> None:
        """`on_owed` is called when predictions have to be pushed."""
        self._store = store
        self._embedder = embedder
        self._encoders = encoders
        self._heads = heads
        self._on_owed = on_owed

    def close(self) -> None:
        """Stop fetching and embedding."""
        self._embedder.close()

    def run(self, jobs: Sequence[Job]) -> None:
        """End every job."""
        by_encoder: dict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            by_encoder[PredictPayload.model_validate(job.payload).encoder].append(job)
        for name, encoder_jobs in by_encoder.items():
            try:
                encoder = self._encoders.get(name)
            except ClapboardError as error:
                for job in encoder_jobs:
                    self._fail(job, error)
            else:
                for embedded_jobs in self._embedder.run(encoder_jobs, encoder):
                    self._finish(embedded_jobs, encoder)

    def _finish(self, embedded_jobs: Sequence[EmbeddedJob], encoder: ClapEncoder) -> None:
        """Score the jobs' recordings and end the jobs."""
        recordings = [embedded.recording for embedded in embedded_jobs if embedded.recording is not None]
        vectors = self._store.embeddings.get(recordings, encoder.identity.version, encoder.identity.dtype)
        held_out = self._held_out(embedded_jobs)
        predictions: list[tuple[Job, StoredPrediction]] = []
        outcomes: dict[int, str] = {}
        for embedded in embedded_jobs:
            job, recording = embedded.job, embedded.recording
            try:
                if recording is None:
                    assert embedded.error is not None
                    raise embedded.error
                if (job.project, job.task) in held_out:
                    self._store.jobs.done(job, HELD_OUT)
                    continue
                predictions.append((job, self._predict(embedded, recording, vectors[recording.sha256], encoder)))
                if recording.damage:
                    outcomes[job.id] = f"The recording is damaged: {recording.damage}."
            except ClapboardError as error:
                self._fail(job, error)
            except Exception as error:
                self._fail(job, unexpected_error("predicting", error))
        self._store_predictions(predictions, outcomes)

    def _held_out(self, embedded_jobs: Sequence[EmbeddedJob]) -> set[tuple[int, int]]:
        """Project and task of the jobs whose recording is held out, under any address."""
        task_ids: dict[int, list[int]] = defaultdict(list)
        for embedded in embedded_jobs:
            task_ids[embedded.job.project].append(embedded.job.task)
        return {
            (project, task_id)
            for project, project_task_ids in task_ids.items()
            for task_id, task in self._store.tasks.get(project, project_task_ids).items()
            if task.held_out
        }

    def _predict(
        self, embedded: EmbeddedJob, recording: Recording, vectors: Embeddings, encoder: ClapEncoder
    ) -> StoredPrediction:
        job, payload, identity = embedded.job, embedded.payload, encoder.identity
        head_name = self._head_name(job, payload, identity.version)
        label_space, head = self._heads.get(encoder, payload.space_id, head_name)
        # The job may have been queued under another encoder than the one loaded: name the version after what made it.
        version = prediction.model_version(identity, label_space, head_name)
        frames = None
        if label_space.on_frames:
            frames = self._store.frames.get(recording, identity.version, identity.dtype)
            if frames is None:  # deleted a moment ago
                raise InternalError("The recording's frames aren't stored: the job is tried again.")
        predicted = prediction.predict(label_space, vectors, head, version, frames)
        return StoredPrediction(job.project, job.task, version, payload.uri_key, predicted.score, predicted.result)

    def _head_name(self, job: Job, payload: PredictPayload, encoder_version: str) -> str:
        """The head that the job names; if nobody waits for it, the one promoted since on the same encoder."""
        promoted = self._store.versions.promoted(job.project) if job.push else None
        if promoted and (promoted.encoder_version, promoted.space_id) == (encoder_version, payload.space_id):
            return promoted.head
        return payload.head

    def _store_predictions(
        self, predictions: Sequence[tuple[Job, StoredPrediction]], outcomes: Mapping[int, str]
    ) -> None:
        """End the jobs as done in one transaction; if that fails, one by one, so that each has its own reason."""
        try:
            self._finish_together(predictions, outcomes)
        except (StoreError, SQLAlchemyError):
            for job, predicted in predictions:
                try:
                    self._finish_together([(job, predicted)], outcomes)
                except Exception as error:
                    self._fail(job, unexpected_error("predicting", error))

    def _finish_together(
        self, predictions: Sequence[tuple[Job, StoredPrediction]], outcomes: Mapping[int, str]
    ) -> None:
        if predictions and self._store.finish_with_predictions(predictions, outcomes):
            self._on_owed()

    def _fail(self, job: Job, error: ClapboardError) -> None:
        self._store.jobs.fail(job, error)
        with about(**job.subject):
            log.info("%s: %s", error.code, error)
