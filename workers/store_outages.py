"""What a worker does when its store fails: say so once, go on trying, and end if the store is damaged."""

from __future__ import annotations

import logging
import os
import signal
import time

from clapboard.errors import StoreDamaged, StoreError

REPEAT_AFTER_S = 60.0
"""How long the same failure isn't logged again."""

log = logging.getLogger(__name__)


class StoreOutages:
    """The store's failures as all threads of a worker meet them. `damage` is the one that ended the worker."""

    def __init__(self) -> None:
        self.damage: StoreDamaged | None = None
        self._last_message = ""
        self._logged_at = 0.0

    def report(self, error: StoreError) -> None:
        """Log the failure, unless it was just logged. If the store is damaged, have the process stop in good order."""
        now = time.monotonic()
        if str(error) != self._last_message or now - self._logged_at > REPEAT_AFTER_S:
            self._last_message, self._logged_at = str(error), now
            log.warning("%s Trying again.", error)
        if isinstance(error, StoreDamaged) and self.damage is None:
            self.damage = error
            os.kill(os.getpid(), signal.SIGTERM)  # stops Celery from any thread
