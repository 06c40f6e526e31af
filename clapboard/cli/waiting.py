"""Waiting for a job at the command line: its progress as it goes, its outcome at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from clapboard.cli.output import console, errors_console, write_json
from clapboard.errors import NoWorkerError

if TYPE_CHECKING:
    from clapboard.settings import Settings
    from clapboard.store import Store
    from clapboard.store.jobs import Job

_POLL_S = 0.3

Wait = Annotated[bool, typer.Option(help="Wait until it is done; --no-wait only queues.")]


def wait_for_job(settings: Settings, store: Store, job_id: int) -> Job:
    """The job once it has ended. Raises `NoWorkerError` if nobody works on it."""
    last_alive_at = store.clock()
    with errors_console().status("waiting for a worker") as status:
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


def run_job(
    settings: Settings, store: Store, queue: str, kind: str, project: int, version: str, *, wait: bool, as_json: bool
) -> None:
    """Queue the job, or join the open one, and tell what came of it. Exit code 1 if it failed."""
    from clapboard.jobs import CeleryBell, make_celery
    from clapboard.store.jobs import JobRequest, State

    (job_id,) = store.jobs.add(queue, [JobRequest(kind, project, model_version=version, delay_s=0.0)])
    CeleryBell(make_celery(settings)).ring(queue)
    if not wait:
        write_json({"job": job_id}) if as_json else console().print(f"Job {job_id} is queued: see `clapboard jobs`.")
        return
    job = wait_for_job(settings, store, job_id)
    if as_json:
        write_json({"job": job.id, "state": job.state, "error_code": job.error_code, "outcome": job.error})
    else:
        colour = "red" if job.state == State.FAILED else "green"
        console().print(f"[{colour}]{job.state}[/]: {escape(job.error or '')}", highlight=False)
    if job.state == State.FAILED:
        raise typer.Exit(1)
