"""Takes Celery's wake-ups: runs Celery's worker in this process, and builds it anew whenever it breaks down.

Celery survives most losses of its broker, but not all: with kombu 5.7, a Redis that is killed ends a busy worker with
an «unrecoverable error», and so do a Redis that is out of memory and a folder on a full disk. Until wake-ups arrive
again, the worker polls its queues every second, as it does while the broker can't be reached.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from celery.apps.worker import Worker as CeleryWorker
from celery.exceptions import SecurityWarning
from celery.platforms import EX_FAILURE
from celery.worker import state
from kombu.asynchronous import set_event_loop

from clapboard.logs import describe
from clapboard.store.clock import steady

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
_THREADS = 2  # each wake-up only starts another thread

log = logging.getLogger(__name__)


class CeleryConsumer:
    """Runs Celery's worker in the calling thread. Other threads may ask whether it `is_connected`."""

    def __init__(
        self, app: Celery, name: str, queues: Sequence[str], log_level: str, stopping: threading.Event
    ) -> None:
        self._app = app
        self._name = name
        self._queues = list(queues)
        self._log_level = log_level
        self._stopping = stopping
        self._worker: CeleryWorker | None = None

    @property
    def is_connected(self) -> bool:
        """Whether wake-ups arrive at the moment, as far as Celery knows."""
        consumer: Any = getattr(self._worker, "consumer", None)
        return bool(getattr(consumer, "task_consumer", None)) and bool(getattr(consumer, "connection", None))

    def run(self) -> None:
        """Take wake-ups until `stopping` is set, or somebody asks Celery to shut this worker down."""
        # Celery warns root about pickle, which this app doesn't accept.
        warnings.simplefilter("ignore", SecurityWarning)
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began_at = steady()
            if not self._broke_down():
                return
            if steady() - began_at > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            log.warning("no wake-ups arrive; reconnecting in %g s, and polling the queues every second", pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _broke_down(self) -> bool:
        """Run Celery's worker until it ends; whether it broke down, as against being told to stop."""
        set_event_loop(None)  # the last worker may have left callbacks of its dead connection there
        try:
            self._worker = _WorkerWithoutSignals(
                app=self._app,
                hostname=self._name,
                pool="threads",
                concurrency=_THREADS,
                queues=self._queues,
                loglevel=self._log_level,
                redirect_stdouts=False,
                quiet=True,
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
            )
            self._worker.start()
            return not self._stopping.is_set() and self._worker.exitcode == EX_FAILURE
        except Exception as error:  # as with too many open files, before there is a worker that could end
            log.error("Celery's worker can't be started: %s", describe(error))
            return True
        finally:
            self._worker = None


class _WorkerWithoutSignals(CeleryWorker):  # type: ignore[misc]  # Celery has no types
    """Leaves signals to `stop_on_signals`: Celery's handlers would be there only while its worker is."""

    def install_platform_tweaks(self, worker: Any) -> None:
        """Called by Celery when it starts."""


def stop_on_signals(stop: Callable[[], None]) -> threading.Event:
    """Have SIGTERM, SIGINT and SIGHUP stop the process in good order from now on; a second Ctrl-C ends it at once.

    The returned event is set when Ctrl-C was among them.
    """
    interrupted = threading.Event()

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT:
            if interrupted.is_set():
                os._exit(128 + number)
            interrupted.set()
        state.should_stop = 0  # the exit code; Celery's loop looks at it
        stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    return interrupted
