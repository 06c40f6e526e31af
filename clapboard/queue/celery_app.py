"""Celery's part of the queue: the app, the queues' names, typed payloads, and wake-ups.

A Celery message carries no work. It wakes the workers of a queue, which then claim jobs from the jobs table. So a
message that is lost, late or delivered twice changes nothing, on any transport.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Protocol

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import KombuError
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from clapboard.queue.names import BATCH, INTERACTIVE, LEARN, QUEUES, SEARCH, TRAIN
from clapboard.settings import Settings
from clapboard.suggest.head import ZERO_SHOT

__all__ = [
    "BATCH",
    "INTERACTIVE",
    "LEARN",
    "QUEUES",
    "SEARCH",
    "TRAIN",
    "WAKE_UP",
    "CeleryWaker",
    "PredictPayload",
    "Waker",
    "make_celery",
]

WAKE_UP = "clapboard.ring"
"""The Celery task's name, as messages carry it: another one would break queues shared with an earlier release."""

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
    channel: str = ""
    frames: bool = False  # whether the recording's frames are needed too


class Waker(Protocol):
    """Tells workers that a queue has work."""

    def wake(self, queue: str) -> bool:
        """Whether the message was sent. Never raises: without it, workers find the work when they next poll."""


class CeleryWaker:
    """Wakes workers through Celery's broker."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def wake(self, queue: str) -> bool:
        """Send a wake-up to the queue; whether the broker accepted it. A refusal is logged."""
        try:
            self._app.send_task(
                WAKE_UP, args=[queue], queue=queue, expires=_MESSAGE_LIFE_S, ignore_result=True, retry=False
            )
        except (KombuError, OSError) as error:
            log.warning("the broker can't be reached (%s); workers look for work by themselves", type(error).__name__)
            return False
        return True


def make_celery(settings: Settings, *, queues: Iterable[str] = QUEUES) -> Celery:
    """The Celery app on the settings' broker: the filesystem transport by default, or Redis."""
    app = Celery("clapboard", set_as_current=False)
    broker_url = settings.broker_url.get_secret_value()
    app.conf.update(
        broker_url=broker_url or "folder://localhost",
        broker_transport=None if broker_url else "clapboard.queue.folder_transport:Transport",
        broker_transport_options=_transport_options(settings),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=4,
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in queues],
        task_default_queue=INTERACTIVE,
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
        # Don't wait for a lost broker to come back: by default, each wake-up would block for six seconds.
        fail_soon = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        return {"visibility_timeout": _VISIBILITY_S, "socket_connect_timeout": 2, "socket_timeout": 3} | fail_soon
    return {"folder": str(settings.broker_dir), "polling_interval": _POLL_S}
