"""Waiting for a job at the command line: its progress as it goes, its outcome at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.markup import escape

from clapboard.cli.output import errors_console
from clapboard.errors import NoWorkerError

if TYPE_CHECKING:
    from clapboard.settings import Settings
    from clapboard.store import Store
    from clapboard.store.jobs import Job

_POLL_S = 0.3


def wait_for_job(settings: Settings, store: Store, job_id: int) -> Job:
    """The job once it has ended. Raises `NoWorkerError` if nobody works on it."""
    console = errors_console()
    last_alive_at = store.clock()
    with console.status("waiting for a worker") as status:
        while store.jobs.open_ids([job_id]):
            job = store.jobs.get(job_id)
            if job.progress:
                status.update(escape(job.progress))
            if store.catalog.workers(settings.job_lease_s):
                last_alive_at = store.clock()
            elif store.clock() - last_alive_at > settings.job_lease_s:
                raise NoWorkerError(
                    f"No worker is alive: start one with `clapboard worker`. Job {job_id} stays queued."
                )
            time.sleep(_POLL_S)
    return store.jobs.get(job_id)
