"""`jobs`: what is going on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, console, settings_with, write_json
from clapboard.pace import duration
from clapboard.store.jobs import OPEN, Job, State
from clapboard.store.progress import PUSH, UnderWay


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(jobs)


def jobs(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Only this project's.")] = None,
    state: Annotated[str | None, typer.Option(help="Only queued, running, done or failed ones.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """What is queued, running, done, failed, and why; how far whole projects are, and how long they take yet."""
    from clapboard.errors import SettingsError
    from clapboard.store import Store

    if state is not None and state not in set(State):
        raise SettingsError(f"State {state} doesn't exist: choose from {', '.join(State)}.")
    store = Store.open(settings_with())
    found = store.jobs.newest(project=project, state=State(state) if state else None, limit=limit)
    counts = store.jobs.counts(project=project)
    under_way = store.progress.under_way(project)
    if as_json:
        totals: dict[str, dict[str, int]] = {}
        for (queue, kind), count in counts.items():
            totals.setdefault(queue, {})[kind] = count
        going = [asdict(one) | {"eta_s": one.eta_s} for one in under_way]
        write_json({"counts": totals, "under_way": going, "jobs": [_shown(asdict(job)) for job in found]})
        return
    _show_jobs(found)
    if under_way:
        _show_under_way(under_way)
    console().print(
        ", ".join(f"{queue}: {count} {kind}" for (queue, kind), count in sorted(counts.items())) or "no jobs"
    )


def _show_jobs(found: Sequence[Job]) -> None:
    table = Table("job", "queue", "kind", "project", "task", "state", "tries", "age")
    table.add_column("how far, why, or what came of it", min_width=40)
    colours = {State.FAILED: "red", State.RUNNING: "cyan", State.DONE: "green", State.QUEUED: "yellow"}
    for job in found:
        table.add_row(
            *(str(job.id), job.queue, job.kind, str(job.project), str(job.task or "")),
            f"[{colours[job.state]}]{job.state}[/]",
            *(str(job.attempts), _ago(job.created_at), escape(_told(job))),
        )
    console().print(table)


def _show_under_way(under_way: Sequence[UnderWay]) -> None:
    table = Table("project", "what", "model version", title="Under way")
    for column in ("done", "of", "a second", "time left"):
        table.add_column(column, justify="right")
    for one in under_way:
        what = "pushes to Label Studio" if one.queue == PUSH else f"predictions, {one.queue}"
        rate = "" if one.per_s is None else f"{one.per_s:.3g}"
        left = "not known" if one.eta_s is None else duration(one.eta_s)
        table.add_row(
            *(str(one.project), what, one.model_version, f"{one.num_done:,}", f"{one.num_total:,}", rate, left)
        )
    console().print(table)


def _shown(job: dict[str, Any]) -> dict[str, Any]:
    """Less the payload's URI, which may hold a signature."""
    return {name: value for name, value in job.items() if name != "payload"}


def _told(job: Job) -> str:
    """How far an open job is; why an ended one failed, or what came of it."""
    return (job.progress if job.state in OPEN else job.error) or ""


def _ago(at: float) -> str:
    return duration(max(0.0, time.time() - at))
