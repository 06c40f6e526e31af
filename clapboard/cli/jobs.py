"""`jobs`: what is queued, running, done and failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, console, settings_with, write_json
from clapboard.queue.pace import duration

if TYPE_CHECKING:
    from clapboard.store.jobs import Job
    from clapboard.store.progress import UnderWay


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(jobs)


def jobs(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Only jobs of this project.")] = None,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state: queued, running, done or failed.")] = None,
    limit: Annotated[int, typer.Option(help="Number of jobs to show, newest first.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the newest jobs, their state and outcome, the progress of whole projects and the time they have left."""
    from clapboard.errors import SettingsError
    from clapboard.store import Store
    from clapboard.store.jobs import State

    if state is not None and state not in set(State):
        raise SettingsError(f"State {state} doesn't exist: choose from {', '.join(State)}.")
    store = Store.open(settings_with())
    newest = store.jobs.newest(project=project, state=State(state) if state else None, limit=limit)
    counts = store.jobs.counts(project=project)
    under_way = store.progress.under_way(project)
    if as_json:
        totals: dict[str, dict[str, int]] = {}
        for (queue, kind), count in counts.items():
            totals.setdefault(queue, {})[kind] = count
        progress = [asdict(work) | {"eta_s": work.eta_s} for work in under_way]
        write_json({"counts": totals, "under_way": progress, "jobs": [_without_payload(asdict(job)) for job in newest]})
        return
    _show_jobs(newest, store.clock())
    if under_way:
        _show_under_way(under_way)
    console().print(
        ", ".join(f"{queue}: {count} {kind}" for (queue, kind), count in sorted(counts.items())) or "no jobs"
    )


def _show_jobs(jobs: Sequence[Job], now: float) -> None:
    from clapboard.store.jobs import State

    table = Table("job", "queue", "kind", "project", "task", "state", "tries", "age")
    table.add_column("progress, reason or outcome", min_width=40)
    colours = {State.FAILED: "red", State.RUNNING: "cyan", State.DONE: "green", State.QUEUED: "yellow"}
    for job in jobs:
        table.add_row(
            *(str(job.id), job.queue, job.kind, str(job.project), str(job.task or "")),
            f"[{colours[job.state]}]{job.state}[/]",
            *(str(job.attempts), duration(max(0.0, now - job.created_at)), escape(_outcome(job))),
        )
    console().print(table)


def _show_under_way(under_way: Sequence[UnderWay]) -> None:
    from clapboard.store.progress import PUSH

    table = Table("project", "what", "model version", title="Under way")
    for column in ("done", "of", "a second", "time left"):
        table.add_column(column, justify="right")
    for work in under_way:
        kind = "pushes to Label Studio" if work.queue == PUSH else f"predictions, {work.queue}"
        rate = "" if work.per_s is None else f"{work.per_s:.3g}"
        left = "not known" if work.eta_s is None else duration(work.eta_s)
        table.add_row(
            *(str(work.project), kind, work.model_version, f"{work.num_done:,}", f"{work.num_total:,}", rate, left)
        )
    console().print(table)


def _without_payload(job: dict[str, Any]) -> dict[str, Any]:
    """The job without its payload, whose URI may contain a signature."""
    return {name: value for name, value in job.items() if name != "payload"}


def _outcome(job: Job) -> str:
    """An open job's progress; an ended one's outcome, or the reason why it failed."""
    from clapboard.store.jobs import OPEN

    return (job.progress if job.state in OPEN else job.error) or ""
