"""Label Studio's public address (its LABEL_STUDIO_HOST), which it writes into the tasks that it makes from files.

It may differ from LABEL_STUDIO_URL, the address that Clapboard uses. Label Studio sends it to the backend with each
`/setup`; workers and commands read it from the store.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable

from clapboard.errors import StoreError
from clapboard.settings import Settings
from clapboard.settings.hosts import require_http_address
from clapboard.sources import AudioSources
from clapboard.store import Store

_CACHE_S = 1.0
_LONGEST_CHARS = 2_000


class PublicAddress:
    """The public address that was received last, cached for a second. Threads may share it."""

    def __init__(self, settings: Settings, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._label_studio = settings.label_studio_url
        self._store = store
        self._clock = clock
        self._address = ""
        self._read_at = -math.inf
        self._is_stored = True

    def __call__(self) -> str:
        """The address; empty until Label Studio has sent it."""
        if self._is_stored and self._clock() - self._read_at > _CACHE_S:
            with contextlib.suppress(StoreError):  # keep using the cached one
                self._address = self._store.catalog.public_address(self._label_studio)
            self._read_at = self._clock()
        return self._address

    def receive(self, address: str) -> None:
        """Take the address from a `/setup` request, for `store` to keep; what can't be an address is ignored."""
        address = address.strip().rstrip("/")
        if address != self() and _is_address(address):
            self._address, self._is_stored = address, False

    def store(self) -> None:
        """Store a newly received address, so that other processes know it."""
        if not self._is_stored:
            self._store.catalog.put_public_address(self._label_studio, self._address)
            self._is_stored = True


def audio_sources(settings: Settings, store: Store) -> AudioSources:
    """Audio sources that know Label Studio by both of its addresses."""
    return AudioSources(settings, public_address=PublicAddress(settings, store))


def _is_address(text: str) -> bool:
    if len(text) > _LONGEST_CHARS or not text.isprintable():
        return False
    try:
        require_http_address(text)
    except ValueError:
        return False
    return True
