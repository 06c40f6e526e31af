"""Celery's part of the queue: the app, the queues' names, typed payloads, and the bell.

A Celery message carries no work. It rings a queue's bell, and a worker that hears it claims what the jobs table holds.
So a message that is lost, late or delivered twice changes nothing, on whatever transport.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Protocol

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import KombuError
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from clapboard.head import ZERO_SHOT
from clapboard.settings import Settings

INTERACTIVE, SEARCH, LEARN, BATCH, TRAIN = "interactive", "search", "learn", "batch", "train"
QUEUES = (INTERACTIVE, SEARCH, LEARN, BATCH, TRAIN)
"""Most urgent first."""

RING = "clapboard.ring"
_POLL_S = 0.02
_VISIBILITY_S = 3600
_MESSAGE_LIFE_S = 300

log = logging.getLogger(__name__)


class PredictPayload(BaseModel):
    """A `predict` job: which audio, and which encoder, label space and head it is for.

    Jobs that were queued under the store's first schema name no encoder and no head: the base model's zero-shot.
    """

    model_config = ConfigDict(frozen=True)
    kind: str = "predict"

    uri: str
    uri_key: str
    encoder: str = ""
    space_id: str = Field(validation_alias=AliasChoices("space_id", "head_id"))
    head: str = ZERO_SHOT


class Bell(Protocol):
    """Tells workers that a queue holds something."""

    def ring(self, queue: str) -> bool:
        """Whether it rang. Never raises: without a bell, work only waits until a worker looks by itself."""


class CeleryBell:
    """The bell that every process uses."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self, queue: str) -> bool:
        """Send the queue's message; whether the broker took it, which is logged if not."""
        try:
            self._app.send_task(
                RING, args=[queue], queue=queue, expires=_MESSAGE_LIFE_S, ignore_result=True, retry=False
            )
        except (KombuError, OSError) as error:
            log.warning("the broker can't be reached (%s); workers look for work by themselves", type(error).__name__)
            return False
        return True


def make_celery(settings: Settings, *, queues: Iterable[str] = QUEUES) -> Celery:
    """The Celery app on the settings' broker: the filesystem transport by default, or Redis."""
    app = Celery("clapboard", set_as_current=False)
    app.conf.update(
        broker_url=settings.broker_url.get_secret_value() or "folder://localhost",
        broker_transport=None if settings.broker_url.get_secret_value() else "clapboard.folder_transport:Transport",
        broker_transport_options=_transport_options(settings),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=4,
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in queues],
        task_default_queue=INTERACTIVE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
    )
    return app


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker_url.get_secret_value():
        # Whoever rings doesn't wait until the broker is back: by default, six seconds at each ring.
        fail_soon = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        return {"visibility_timeout": _VISIBILITY_S, "socket_connect_timeout": 2, "socket_timeout": 3} | fail_soon
    return {"folder": str(settings.broker_dir), "polling_interval": _POLL_S}
