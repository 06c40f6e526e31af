"""Claim a batch, embed it, score it, and end every job of it: done or failed, each alone."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from clapboard import prediction
from clapboard.clap import ClapEncoder, Embeddings
from clapboard.errors import ClapboardError
from clapboard.jobs import PredictPayload
from clapboard.logs import about
from clapboard.store import Store
from clapboard.store.jobs import Job
from clapboard.store.predictions import StoredPrediction
from workers.embed import Embedded, EmbeddingStage
from workers.encoders import EncoderPool
from workers.heads import Heads
from workers.pipeline import unforeseen

log = logging.getLogger(__name__)


class PredictJobs:
    """Runs `predict` jobs from claim to stored prediction. Threads may share it."""

    def __init__(
        self,
        store: Store,
        stage: EmbeddingStage,
        encoders: EncoderPool,
        heads: Heads,
        *,
        on_owed: Callable[[], None],
    ) -> None:
        self._store = store
        self._stage = stage
        self._encoders = encoders
        self._heads = heads
        self._on_owed = on_owed

    def run(self, jobs: Sequence[Job]) -> None:
        """End every job."""
        by_encoder: dict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            by_encoder[PredictPayload.model_validate(job.payload).encoder].append(job)
        for name, some in by_encoder.items():
            try:
                encoder = self._encoders.get(name)
            except ClapboardError as error:
                for job in some:
                    self._fail(job, error)
            else:
                for embedded in self._stage.run(some, encoder):
                    self._finish(embedded, encoder)

    def _finish(self, embedded: Sequence[Embedded], encoder: ClapEncoder) -> None:
        """End these jobs together; if that doesn't go, one by one, so that each has its own reason."""
        found = []
        recordings = [one.recording for one in embedded if one.recording is not None]
        vectors = self._store.embeddings.get(recordings, encoder.identity.version, encoder.identity.dtype)
        for one in embedded:
            try:
                if one.recording is None:
                    assert one.error is not None
                    raise one.error
                found.append((one.job, self._predict(one, vectors[one.recording.sha256], encoder)))
            except ClapboardError as error:
                self._fail(one.job, error)
            except Exception as error:
                self._fail(one.job, unforeseen("predicting", error))
        try:
            self._store_all(found)
        except SQLAlchemyError:
            for job, prediction in found:
                try:
                    self._store_all([(job, prediction)])
                except Exception as error:
                    self._fail(job, unforeseen("predicting", error))

    def _store_all(self, found: Sequence[tuple[Job, StoredPrediction]]) -> None:
        if found and self._store.finish_with_predictions(found):
            self._on_owed()

    def _fail(self, job: Job, error: ClapboardError) -> None:
        self._store.jobs.fail(job, error)
        with about(**job.subject):
            log.info("%s: %s", error.code, error)

    def _predict(self, embedded: Embedded, vectors: Embeddings, encoder: ClapEncoder) -> StoredPrediction:
        job, payload, identity = embedded.job, embedded.payload, encoder.identity
        name = self._head_name(job, payload, identity.version)
        label_space, head = self._heads.get(encoder, payload.space_id, name)
        # Asked for under another encoder than the one loaded: the answer is named for what made it.
        version = prediction.model_version(identity, label_space, name)
        found = prediction.predict(label_space, vectors, head, version)
        return StoredPrediction(job.project, job.task, version, payload.uri_key, found.score, found.result)

    def _head_name(self, job: Job, payload: PredictPayload, encoder_version: str) -> str:
        """The head that was asked for; or, where nobody waits, the one that has been promoted on its encoder since."""
        promoted = self._store.versions.promoted(job.project) if job.push else None
        same = (encoder_version, payload.space_id)
        return promoted.head if promoted and (promoted.encoder_version, promoted.space_id) == same else payload.head
