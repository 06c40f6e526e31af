"""What answers Label Studio's requests, whichever HTTP server takes them: one set in each process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from backend.answering import PredictService
from backend.served_versions import ServedVersions
from backend.setup import SetupService
from backend.webhook import WebhookService
from clapboard.installation.public_address import PublicAddress
from clapboard.queue.celery_app import CeleryWaker, Waker, make_celery
from clapboard.settings import Settings
from clapboard.store import Store


@dataclass(frozen=True)
class Services:
    """The services on one store and one broker."""

    store: Store
    waker: Waker
    versions: ServedVersions
    setups: SetupService
    predictions: PredictService
    webhooks: WebhookService

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """The services on the store and the broker of the settings. Raises `SettingsError`, `StoreError`."""
        return cls.on(settings, Store.open(settings), CeleryWaker(make_celery(settings)))

    @classmethod
    def on(cls, settings: Settings, store: Store, waker: Waker) -> Self:
        """The services on this store and this broker."""
        versions = ServedVersions(settings, store)
        public_address = PublicAddress(settings, store)
        return cls(
            store,
            waker,
            versions,
            SetupService(store, versions, public_address, waker),
            PredictService(settings, store, versions, public_address, waker),
            WebhookService(settings, store, waker),
        )
