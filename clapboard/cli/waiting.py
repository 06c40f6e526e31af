"""Wait for a job on the command line: show its progress, then its outcome."""

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

Wait = Annotated[bool, typer.Option(help="Wait until it is done; --no-wait only queues it.")]


def wait_for_job(settings: Settings, store: Store, job_id: int) -> Job:
    """The job, once it has ended. Raises `NoWorkerError` if no worker is alive for the length of a lease."""
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
    """Queue the job, or join an open one of its kind, and print its outcome. Exit code 1 if it failed."""
    from clapboard.store.jobs import JobRequest

    (job_id,) = store.jobs.add(queue, [JobRequest(kind, project, model_version=version, delay_s=0.0)])
    follow_job(settings, store, queue, job_id, wait=wait, as_json=as_json)


def follow_job(settings: Settings, store: Store, queue: str, job_id: int, *, wait: bool, as_json: bool) -> None:
    """Wake a worker for the queued job and print its outcome. Exit code 1 if it failed."""
    from clapboard.queue.celery_app import CeleryWaker, make_celery
    from clapboard.store.jobs import State

    CeleryWaker(make_celery(settings)).wake(queue)
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
