"""Predictions for tasks whose audio is embedded already: the backend scores them itself, without a worker."""

from __future__ import annotations

from collections.abc import Set

from backend.task_batch import AdmittedTasks, TaskRequest
from clapboard.errors import NotFoundError
from clapboard.project.serving import stored_head
from clapboard.store import Store
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest import prediction
from clapboard.suggest.head import Head


def score_embedded(store: Store, admitted: AdmittedTasks, task_ids: Set[int]) -> set[int]:
    """Those of the tasks whose embeddings and head are in the store, once their predictions are stored too."""
    request = admitted.request
    encoder = request.served.encoder
    head = _stored_head(store, request) if task_ids else None
    if head is None:
        return set()
    keys = {task_id: admitted.uri_keys[task_id] for task_id in task_ids}
    recordings = store.embeddings.recordings(list(keys.values()), only_read=True)
    embeddings = store.embeddings.get(list(recordings.values()), encoder.version, encoder.dtype)
    embedded = {
        task_id: embeddings[recordings[key].sha256]
        for task_id, key in keys.items()
        if key in recordings and recordings[key].sha256 in embeddings
    }
    scored = prediction.predict_many(request.label_space, list(embedded.values()), head, request.model_version)
    store.predictions.put_all(
        [
            StoredPrediction(request.project, task_id, request.model_version, keys[task_id], of.score, of.result)
            for task_id, of in zip(embedded, scored, strict=True)
        ],
        push=False,
    )
    return set(embedded)


def _stored_head(store: Store, request: TaskRequest) -> Head | None:
    try:
        return stored_head(store, request.served, request.label_space)
    except NotFoundError:  # replaced a moment ago: a worker answers, under the version that serves by then
        return None
