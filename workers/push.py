"""Owed predictions → Label Studio's API, each exactly once.

Label Studio takes a second prediction of the same version without a word, so the client asks what it holds before
anything is sent. A worker that dies in between leaves its predictions `pushing`; whoever takes them over asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clapboard.errors import LabelStudioError
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.label_studio.validation import PredictionsDropped
from clapboard.logs import about
from clapboard.store import Store
from clapboard.store.predictions import StoredPrediction

PUSH_AT_ONCE = 1000  # Label Studio recounts the whole project at each import, however small
PUSH_LEASES = 4  # a push is given up for lost after so many leases: an import of 1,000 may take a minute
RETRY_S = 15.0
RETRY_REFUSED_S = 300.0  # a wrong token, a project that is gone: somebody has to do something first

log = logging.getLogger(__name__)


class Pusher:
    """Brings owed predictions to Label Studio."""

    def __init__(self, store: Store, client: LabelStudioClient, *, lease_s: float) -> None:
        self._store = store
        self._client = client
        self._lease_s = PUSH_LEASES * lease_s

    def push_owed(self) -> int:
        """Push what is owed now, until there is no more; how many predictions Label Studio holds for it."""
        num_pushed = 0
        while taken := self._store.predictions.take_for_push(PUSH_AT_ONCE, self._lease_s):
            num_pushed += self.push(taken)
        return num_pushed

    def push(
        self, taken: Sequence[StoredPrediction], *, known_absent: bool = False, record: Project | None = None
    ) -> int:
        """Push predictions of one project and version that were taken for it; how many Label Studio holds then.

        Every one leaves here pushed, put off, or given up. `known_absent`: nobody was ever given the version;
        `record`: the project's, for who has just read it.
        """
        if not taken:
            return 0
        with about(project=taken[0].project, model_version=taken[0].model_version):
            return self._push(taken, known_absent, record)

    def _push(self, taken: Sequence[StoredPrediction], known_absent: bool, record: Project | None) -> int:
        project, version = taken[0].project, taken[0].model_version
        tasks = {prediction.task for prediction in taken}
        items = [{"task": prediction.task} | prediction.as_json() for prediction in taken]
        refused: set[int] = set()
        try:
            self._client.push_predictions(project, items, known_absent=known_absent, record=record)
        except PredictionsDropped as error:
            refused = tasks & set(error.dropped)
            log.warning("%s", error)
            self._store.predictions.give_up_push(project, sorted(refused), version)
        except LabelStudioError as error:
            log.warning("predictions wait: %s", error)
            delay_s = RETRY_S if error.retryable else RETRY_REFUSED_S
            self._store.predictions.push_later(project, sorted(tasks), version, delay_s)
            return 0
        self._store.predictions.pushed(project, sorted(tasks - refused), version)
        return len(tasks - refused)
