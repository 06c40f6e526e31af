"""Owed predictions → Label Studio's API, each exactly once.

Label Studio accepts a second prediction of the same version without complaint, so the client asks what it holds before
it sends anything. A worker that dies in between leaves its predictions `pushing`; the worker that takes them over asks
again. A worker that lives renews its lease on all predictions that it is pushing, however long a request takes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clapboard.errors import LabelStudioError, StoreError
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.label_studio.validation import PredictionsDropped
from clapboard.logs import about
from clapboard.store import Store
from clapboard.store.database import in_chunks
from clapboard.store.predictions import StoredPrediction

PUSH_AT_ONCE = 1000  # Label Studio recounts the whole project at each import, however small
PUSH_LEASES = (
    4  # a push is lost after so many job leases without renewal: Label Studio may be busy with its last import
)
RENEWALS_PER_LEASE = 4
RETRY_S = 15.0
RETRY_REFUSED_S = 300.0  # after a wrong token or a deleted project, which somebody has to see to first

log = logging.getLogger(__name__)


class Pusher:
    """Pushes predictions to Label Studio. Threads share it."""

    def __init__(self, store: Store, client: LabelStudioClient, *, lease_s: float) -> None:
        """`lease_s` is a job's lease; a push has several times as long."""
        self._store = store
        self._client = client
        self._lease_s = PUSH_LEASES * lease_s

    def push_owed(self) -> int:
        """Push owed predictions until none are left; how many of them Label Studio holds now."""
        num_pushed = 0
        while predictions := self._store.predictions.take_for_push(PUSH_AT_ONCE, self._lease_s):
            num_pushed += self.push(predictions)
        return num_pushed

    def push(
        self, predictions: Sequence[StoredPrediction], *, known_absent: bool = False, record: Project | None = None
    ) -> int:
        """Push predictions of one project and version that this worker has taken; how many Label Studio holds now.

        Afterwards each is pushed, owed again, given up, or another worker's. `known_absent`: Label Studio can't hold
        any of the version, so it isn't asked. `record`: the project's, if the caller has just read it.
        """
        if not predictions:
            return 0
        num_pushed = 0
        project, model_version = predictions[0].project, predictions[0].model_version
        with about(project=project, model_version=model_version), self._lease(predictions) as lease:
            for chunk in in_chunks(predictions, PUSH_AT_ONCE):
                if lease.is_lost:  # this process stood still, and other workers have them by now
                    log.warning("%d predictions took too long to push: they are left to others", len(lease.task_ids))
                    break
                try:
                    num_pushed += self._push(chunk, known_absent, record)
                except LabelStudioError as error:
                    log.warning("predictions wait: %s", error)
                    delay_s = RETRY_S if error.retryable else RETRY_REFUSED_S
                    self._store.predictions.push_later(project, sorted(lease.task_ids), model_version, delay_s)
                    break
                lease.end(chunk)
        return num_pushed

    def _push(self, chunk: Sequence[StoredPrediction], known_absent: bool, record: Project | None) -> int:
        """How many of the chunk Label Studio holds now."""
        project, model_version = chunk[0].project, chunk[0].model_version
        task_ids = {prediction.task for prediction in chunk}
        items = [{"task": prediction.task} | prediction.as_json() for prediction in chunk]
        refused_ids: set[int] = set()
        try:
            self._client.push_predictions(project, items, known_absent=known_absent, record=record)
        except PredictionsDropped as error:
            refused_ids = task_ids & set(error.dropped)
            log.warning("%s", error)
            self._store.predictions.give_up_push(project, sorted(refused_ids), model_version)
        self._store.predictions.pushed(project, sorted(task_ids - refused_ids), model_version)
        return len(task_ids - refused_ids)

    @contextmanager
    def _lease(self, predictions: Sequence[StoredPrediction]) -> Iterator[_Lease]:
        """A lease that a thread of its own renews, since one request may take longer than the lease."""
        lease = _Lease(self._store, predictions, self._lease_s)
        renewing = threading.Thread(target=lease.renew, daemon=True)
        renewing.start()
        try:
            yield lease
        finally:
            lease.ended.set()
            renewing.join()


class _Lease:
    """This process's claim to the predictions that it is still pushing: those of `task_ids`."""

    def __init__(self, store: Store, predictions: Sequence[StoredPrediction], lease_s: float) -> None:
        self.task_ids = {prediction.task for prediction in predictions}
        self.ended = threading.Event()
        self._store = store
        self._project, self._model_version = predictions[0].project, predictions[0].model_version
        self._lease_s = lease_s
        self._renewed_at = store.clock()
        self._lock = threading.Lock()

    @property
    def is_lost(self) -> bool:
        """Whether it ran out, so that another worker may have taken the predictions over."""
        return self._store.clock() - self._renewed_at > self._lease_s

    def end(self, chunk: Sequence[StoredPrediction]) -> None:
        """Give up the claim to these: they are pushed."""
        with self._lock:
            self.task_ids -= {prediction.task for prediction in chunk}

    def renew(self) -> None:
        """Renew the lease several times a lease until `ended` is set; never once it is lost."""
        while not self.ended.wait(self._lease_s / RENEWALS_PER_LEASE):
            try:
                with self._lock:
                    if self.is_lost:
                        return
                    self._renewed_at = self._store.predictions.renew_push(
                        self._project, sorted(self.task_ids), self._model_version
                    )
            except StoreError as error:
                log.warning("the lease of a push can't be renewed, trying again: %s", error)
