"""Predictions for tasks whose audio is embedded already: the backend scores them itself, without a worker."""

from __future__ import annotations

from collections.abc import Mapping, Set

from backend.task_batch import AdmittedTasks, TaskRequest
from clapboard.errors import NotFoundError
from clapboard.project.serving import stored_head
from clapboard.project.stored_frames import frames_of, predictions
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest.head import Head

_SEARCHED_S = 4_000.0
"""How much audio may be searched for events within a request; workers do the rest."""


def score_embedded(store: Store, admitted: AdmittedTasks, task_ids: Set[int]) -> set[int]:
    """Those of the tasks whose embeddings and head are in the store, once their predictions are stored too."""
    request = admitted.request
    encoder = request.served.encoder
    head = _stored_head(store, request) if task_ids else None
    if head is None:
        return set()
    keys = {task_id: admitted.uri_keys[task_id] for task_id in task_ids}
    recordings = store.embeddings.recordings(list(keys.values()), only_read=True)
    if request.label_space.on_frames:
        recordings = _first_of_hours(recordings)
    embeddings = store.embeddings.get(list(recordings.values()), encoder.version, encoder.dtype)
    embedded = {
        key: embeddings[recording.sha256] for key, recording in recordings.items() if recording.sha256 in embeddings
    }
    frames = frames_of(store, encoder.version, encoder.dtype)
    by_key = dict(predictions(request.label_space, head, request.model_version, embedded, frames))
    scored = {task_id: by_key[key] for task_id, key in keys.items() if key in by_key}
    store.predictions.put_all(
        [
            StoredPrediction(request.project, task_id, request.model_version, keys[task_id], of.score, of.result)
            for task_id, of in scored.items()
        ],
        push=False,
    )
    return set(scored)


def _first_of_hours(recordings: Mapping[str, Recording]) -> dict[str, Recording]:
    """The first of the recordings, as long together as can be searched for events within a request."""
    first: dict[str, Recording] = {}
    left_s = _SEARCHED_S
    for key, recording in recordings.items():
        left_s -= recording.duration_s
        if first and left_s < 0:
            break
        first[key] = recording
    return first


def _stored_head(store: Store, request: TaskRequest) -> Head | None:
    try:
        return stored_head(store, request.served, request.label_space)
    except NotFoundError:  # replaced a moment ago: a worker answers, under the version that serves by then
        return None
