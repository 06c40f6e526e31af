"""How a worker makes itself known in the store: which queues it serves, with which encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from clapboard.errors import StoreError
from clapboard.model.clap import ClapEncoder
from clapboard.store import Store
from workers.encoder_pool import announce_encoder


class Presence:
    """A worker's row among the living workers. It lasts as long as `sign_on` is called again within a lease."""

    def __init__(self, store: Store, worker: str, queues: Sequence[str], encoder: ClapEncoder) -> None:
        self._store = store
        self._worker = worker
        self._queues = queues
        self._encoder = encoder

    def __str__(self) -> str:
        return f"{self._encoder.identity.model} on {self._encoder.device}"

    def begin(self) -> None:
        """Sign on, and announce the encoder, so that the backend can name its model version."""
        self.sign_on()  # first: nobody may see an encoder without a worker that serves it
        announce_encoder(self._store, self._encoder)

    def sign_on(self) -> None:
        """Say that the worker is alive."""
        identity, device = self._encoder.identity, str(self._encoder.device)
        encoder = f"{identity.version} {identity.dtype}"
        queues, computing = ",".join(self._queues), self._encoder.computing
        self._store.catalog.worker_alive(self._worker, identity.model, device, queues, encoder, computing)

    def sign_off(self) -> None:
        """Say that the worker is gone. If the store is away, the end of its heartbeat says the same."""
        with contextlib.suppress(StoreError):
            self._store.catalog.worker_gone(self._worker)
