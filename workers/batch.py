"""Claim a batch, embed it, score it, and end every job of it: done or failed, each alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from clapboard import prediction
from clapboard.clap import ClapEncoder
from clapboard.errors import ClapboardError
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.scoring import Array
from clapboard.store import Store
from clapboard.store.jobs import Job
from clapboard.store.predictions import StoredPrediction
from workers.embed import Embedded, EmbeddingStage, unforeseen

log = logging.getLogger(__name__)


class PredictJobs:
    """Runs `predict` jobs from claim to stored prediction. Threads may share it."""

    def __init__(
        self, store: Store, stage: EmbeddingStage, encoder: ClapEncoder, *, on_owed: Callable[[], None]
    ) -> None:
        self._store = store
        self._stage = stage
        self._encoder = encoder
        self._on_owed = on_owed
        self._heads: dict[str, tuple[LabelSpace, Array]] = {}
        self._heads_turn = threading.Lock()

    def run(self, jobs: Sequence[Job]) -> None:
        """End every job."""
        for embedded in self._stage.run(jobs):
            try:
                if embedded.error is not None:
                    raise embedded.error
                self._finish(embedded)
            except ClapboardError as error:
                self._fail(embedded.job, error)
            except Exception as error:
                self._fail(embedded.job, unforeseen("predicting", error))

    def _fail(self, job: Job, error: ClapboardError) -> None:
        self._store.jobs.fail(job, error)
        log.info("%s: %s", error.code, error, extra=_subject(job))

    def _finish(self, embedded: Embedded) -> None:
        job, payload, recording = embedded.job, embedded.payload, embedded.recording
        assert recording is not None
        identity = self._encoder.identity
        label_space, class_weights = self.head(payload.head_id)
        vectors = self._store.embeddings.get([recording], identity.version, identity.dtype)[recording.sha256]
        found = prediction.predict(label_space, vectors, class_weights, identity.logit_scale)
        # Asked for under another encoder than the one loaded: the answer is named for what made it.
        version = prediction.model_version(identity, label_space)
        stored = StoredPrediction(job.project, job.task, version, payload.uri_key, found.score, found.result)
        if self._store.finish_with_prediction(job, stored):
            self._on_owed()

    def head(self, head_id: str) -> tuple[LabelSpace, Array]:
        """The label space of a head and its class weights `[L + 1, D]`, computed once and kept in the store.

        Raises `NotFoundError` or `LabelConfigError` if the label space isn't known or can't be used.
        """
        with self._heads_turn:
            if head_id not in self._heads:
                label_space = parse_label_config(self._store.catalog.label_config(head_id))
                self._heads[head_id] = label_space, self._class_weights(head_id, label_space)
            return self._heads[head_id]

    def _class_weights(self, head_id: str, label_space: LabelSpace) -> Array:
        version = self._encoder.identity.version
        kept = self._store.catalog.class_weights(version, head_id)
        if kept is None:
            kept = prediction.compute_class_weights(label_space, self._encoder.embed_texts)
            self._store.catalog.put_class_weights(version, head_id, kept)
        return kept


def _subject(job: Job) -> dict[str, int | str]:
    return {"project": job.project, "task": job.task, "job": job.id, "model_version": job.model_version}
