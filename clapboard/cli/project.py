"""`connect`, `doctor`, `prelabel`: one Label Studio project."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import (
    AsJson,
    Model,
    ProjectId,
    console,
    errors_console,
    progress_bar,
    settings_with,
    write_json,
)
from clapboard.errors import NoWorkerError

_POLL_S = 0.5


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(connect)
    app.command()(doctor)
    app.command()(prelabel)


def connect(project: ProjectId, model: Model = None, as_json: AsJson = False) -> None:
    """Add the backend to a Label Studio project, repair its webhook, align its versions. Can be run again."""
    from clapboard.label_studio import connect as connecting
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.labels import parse_label_config
    from clapboard.serving import find_serving
    from clapboard.store import Store

    settings = settings_with(model=model)
    store = Store.open(settings)

    def version_for(label_config: str) -> str:
        return find_serving(store, settings.model, project, parse_label_config(label_config)).model_version

    with LabelStudioClient(settings) as client:
        report = connecting.connect(client, settings, project, version_for)
    store.catalog.put_project(project, report.project.label_config, report.model_version)
    store.catalog.set_connected(project, settings.test_share)
    if as_json:
        write_json({"project": project, "model_version": report.model_version} | _report(report))
        return
    for change in report.changes:
        console().print(f"[green]✓[/] {escape(change)}", highlight=False)
    for warning in report.warnings:
        errors_console().print(f"[yellow]![/] {escape(warning)}", highlight=False)
    console().print(
        f"Project {project} “{report.project.title}” gets its suggestions from {report.model_version}.\n"
        f"Next: clapboard prelabel --project {project}",
        highlight=False,
        markup=False,
    )


def doctor(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Look at this project too.")] = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything that can be wrong: each line is ok, or says what to do. Exit code 1 if one isn't."""
    from clapboard.doctor import examine
    from clapboard.store import Store

    settings = settings_with(model=model)
    healthy = True
    for check in examine(settings, Store.open(settings), project):
        healthy &= check.ok
        if as_json:
            write_json(asdict(check))
        else:
            mark = "[green]ok [/]" if check.ok else "[red]NO [/]"
            console().print(f"{mark} {check.name:18} {escape(check.message)}", highlight=False)
    if not healthy:
        raise typer.Exit(1)


def prelabel(
    project: ProjectId,
    model: Model = None,
    wait: Annotated[bool, typer.Option(help="Wait until all is pushed; --no-wait only queues.")] = True,
    as_json: AsJson = False,
) -> None:
    """Put every task of a project through the batch queue and push the predictions. Can be stopped and run again."""
    from clapboard.jobs import CeleryBell, make_celery
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.prelabel import Prelabeller
    from clapboard.store import Store

    settings = settings_with(model=model)
    store = Store.open(settings)
    began_at = store.clock()
    with LabelStudioClient(settings) as client, progress_bar() as bar:
        listing = bar.add_task("listing tasks", total=client.project(project).num_tasks)
        prelabeller = Prelabeller(settings, store, client, CeleryBell(make_celery(settings)))
        found = prelabeller.run(project, on_page=lambda so_far: bar.update(listing, completed=so_far.num_tasks))
        if wait:
            total = found.num_queued + found.num_cached
            _wait(store, project, found.model_version, total, settings.job_lease_s, bar)
        num_held = sum(bool(ids) for _, ids in client.predictions(project, None, found.model_version))
    failed = store.jobs.failed_since(project, found.model_version, began_at)
    failures = [{"task": job.task, "error": job.error} for job in failed]
    if as_json:
        write_json(asdict(found) | {"project": project, "num_in_label_studio": num_held, "failures": failures})
    else:
        _show_prelabelled(project, found, num_held, failures)
    if failures or (wait and num_held < found.num_tasks - found.num_set_aside):
        raise typer.Exit(1)


def _wait(store: Any, project: int, model_version: str, total: int, lease_s: float, bar: Any) -> None:
    """Until nothing of the project is queued, running or to be pushed. Raises `NoWorkerError` if nobody works."""
    waiting = bar.add_task("pre-labelling", total=total)
    last_alive_at = store.clock()
    while left := store.jobs.num_open(project, model_version) + store.predictions.num_owed(project):
        bar.update(waiting, completed=max(0, total - left))
        if store.catalog.workers(lease_s):
            last_alive_at = store.clock()
        elif store.clock() - last_alive_at > lease_s:
            raise NoWorkerError(
                f"No worker is alive, and {left} tasks wait: start one with `clapboard worker`. They stay queued."
            )
        time.sleep(_POLL_S)
    bar.update(waiting, completed=total)


def _report(report: Any) -> dict[str, Any]:
    return {"title": report.project.title, "changes": list(report.changes), "warnings": list(report.warnings)}


def _show_prelabelled(project: int, found: Any, num_held: int, failures: list[dict[str, Any]]) -> None:
    console().print(
        f"Project {project}: {num_held} of {found.num_tasks} tasks have a suggestion by {found.model_version} "
        f"({found.num_queued} computed now, {found.num_cached} from the store, {found.num_present} there before).",
        highlight=False,
    )
    if found.num_set_aside:
        console().print(
            f"{found.num_set_aside} tasks are set aside: they get no suggestion, so that the labels people give them "
            "can judge a model.",
            highlight=False,
        )
    if failures:
        table = Table("task", "why it has none", title=f"{len(failures)} without a suggestion")
        for failure in failures[:100]:
            table.add_row(str(failure["task"]), escape(failure["error"]))
        console().print(table)
