"""Predict jobs as a backend would queue them, put into the store by the test itself."""

from __future__ import annotations

from collections.abc import Iterable

from clapboard.labels.label_config import parse_label_config
from clapboard.queue.celery_app import BATCH, PredictPayload
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT
from tests.support.fake_label_studio import CHOICES


def queue_predictions(
    settings: Settings,
    store: Store,
    uris: Iterable[str],
    *,
    queue: str = BATCH,
    first_task: int = 1,
    model_version: str = "v1",
    push: bool = False,
    encoder: str = "",
) -> list[int]:
    """A job for each address, of tasks counted from `first_task`, for zero-shot; their ids."""
    space_id, sources = prediction.space_id(parse_label_config(CHOICES)), AudioSources(settings)
    store.catalog.put_label_space(space_id, CHOICES)
    requests = []
    for task, uri in enumerate(uris, first_task):
        payload = PredictPayload(
            uri=uri,
            uri_key=sources.key(uri),
            encoder=encoder or settings.model,
            space_id=space_id,
            head=ZERO_SHOT,
        )
        requests.append(JobRequest("predict", 1, task, model_version, payload.model_dump(), push))
    return store.jobs.add(queue, requests)
