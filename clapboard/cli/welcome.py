"""What `up` and `serve` print: the address, when a worker is ready, and what to do next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from rich.markup import escape

from clapboard.cli.output import errors_console
from clapboard.plurals import counted

if TYPE_CHECKING:
    from clapboard.settings import Settings
    from clapboard.store import Store

_POLL_S = 0.5

log = logging.getLogger(__name__)


class Welcome:
    """Context manager: prints the address at once and, from a thread, the next step once a worker is alive."""

    def __init__(self, settings: Settings, *, as_json: bool, worker_pid: Callable[[], int | None] | None) -> None:
        """`worker_pid` returns the process id of the worker to wait for; without it, any worker counts."""
        self._settings = settings
        self._as_json = as_json
        self._worker_pid = worker_pid
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._wait_for_worker, daemon=True)

    def __enter__(self) -> Self:
        url = self._settings.backend_url
        self._say(f"Clapboard is at {url}, its API described at {url}/docs. Ctrl-C stops it.")
        if self._worker_pid:
            self._say(f"A worker is loading {self._settings.model}; suggestions begin when it is ready.")
        else:
            self._say("Suggestions need a worker on the same store: `clapboard worker`.")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _wait_for_worker(self) -> None:
        from clapboard.errors import StoreError
        from clapboard.store import Store

        store = Store.open(self._settings)
        while not self._closed.wait(_POLL_S):
            try:
                if self._is_worker_ready(store):
                    self._say(f"A worker is ready. {next_step(self._settings, store)}")
                    break
            except StoreError:  # the backend logs it
                continue
        store.close()

    def _is_worker_ready(self, store: Store) -> bool:
        alive = [worker.name for worker in store.catalog.workers(self._settings.job_lease_s)]
        if self._worker_pid is None:
            return bool(alive)
        return any(name.startswith(f"clapboard-{self._worker_pid()}-") for name in alive)

    def _say(self, sentence: str) -> None:
        if self._as_json:
            log.info(sentence)
        elif log.isEnabledFor(logging.INFO):
            errors_console().print(f"[bold green]>[/] {escape(sentence)}", highlight=False)


def next_step(settings: Settings, store: Store) -> str:
    """A sentence on what to do now that everything runs."""
    if not settings.label_studio_api_key.get_secret_value():
        return (
            "Next: stop it, copy an access token from Label Studio's account page into LABEL_STUDIO_API_KEY, and start "
            "it again."
        )
    connected = store.catalog.connected_projects()
    if not connected:
        return "Next, in another terminal: clapboard connect --project 1"
    unlabelled = [project for project in connected if not store.predictions.model_versions(project)]
    if unlabelled:
        return f"Next, in another terminal: clapboard prelabel --project {max(unlabelled)}"
    projects = counted(len(connected), "connected project")
    return f"Continuing with {projects}; tasks and annotations from the meantime are read now."
