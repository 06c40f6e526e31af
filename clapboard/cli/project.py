"""`connect`, `doctor` and `prelabel`: set up a Label Studio project, check everything, pre-label it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

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
from clapboard.plurals import counted, plural

if TYPE_CHECKING:
    from clapboard.labels.label_space import LabelSpace

_POLL_S = 0.5
_PASSWORD_MADE = (
    "a password was generated, which Label Studio knows and the backend requires from now on: `clapboard config "
    "--password` prints it"
)


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(connect)
    app.command()(doctor)
    app.command()(prelabel)


def connect(project: ProjectId, model: Model = None, as_json: AsJson = False) -> None:
    """Add the backend to a Label Studio project, or repair its connection. Can be run at any time.

    Repairs the webhook, aligns the model versions, and lists the controls that get suggestions. Exit code 1 if none do.
    """
    from clapboard.installation.backend_password import prepare
    from clapboard.label_studio import connect as connecting
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.labels.label_config import parse_label_config
    from clapboard.project.display import name_in_use, settle
    from clapboard.project.lock import WAIT_S, ProjectLocks
    from clapboard.project.serving import find_serving
    from clapboard.project.tabs import make_tabs
    from clapboard.store import Store

    given = settings_with(model=model)
    store = Store.open(given)
    settings = prepare(given, store)

    def version_for(label_config: str) -> str:
        serving = find_serving(store, settings.model, project, parse_label_config(label_config))
        return name_in_use(store, project, serving.model_version)

    locks = ProjectLocks(store, "clapboard connect", settings.job_lease_s)
    with LabelStudioClient(settings) as client, locks.hold(project, wait_s=WAIT_S, on_wait=errors_console().print):
        report = connecting.connect(client, settings, project, version_for)
        store.departures.return_project(project)  # if it was forgotten, somebody now wants it back
        store.catalog.put_project(project, report.project.label_config, report.model_version)
        store.catalog.set_connected(project, settings.test_share, client.last_task(project))
        settle(store, client, settings, project, report.model_version)
        make_tabs(store, client, project)
        others = [number for number in store.catalog.connected_projects() if number != project]
        report = report.with_more(warnings=connecting.give_password(client, settings, others))
    if not given.basic_auth_user and store.access.enforce():
        report = report.with_more(changes=[_PASSWORD_MADE])
    label_space = parse_label_config(report.project.label_config)
    if as_json:
        write_json({"project": project, "model_version": report.model_version} | _report(report, label_space))
    else:
        _show_connected(project, report, label_space)
    if not label_space.suggested:
        raise typer.Exit(1)


def doctor(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Check this project too.")] = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Check the whole installation: each line is ok, or says what to do. Exit code 1 if one is not ok."""
    from clapboard.doctor.checks import examine
    from clapboard.store import Store

    settings = settings_with(model=model)
    checks = []
    for check in examine(settings, Store.open(settings), project):
        checks.append(check)
        if not as_json:
            mark = "[green]ok [/]" if check.ok else "[red]NO [/]"
            console().print(f"{mark} {check.name:18} {escape(check.message)}", highlight=False)
    if as_json:
        write_json([asdict(check) for check in checks])
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def prelabel(
    project: ProjectId,
    model: Model = None,
    wait: Annotated[
        bool, typer.Option(help="Wait until all predictions are pushed; --no-wait only queues them.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Predict every task of a project and push the predictions to Label Studio. Can be stopped and run again."""
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.project.prelabel import Prelabeller
    from clapboard.queue.celery_app import CeleryWaker, make_celery
    from clapboard.store import Store
    from clapboard.suggest.prediction import shown_name

    settings = settings_with(model=model)
    store = Store.open(settings)
    began_at = store.clock()
    with LabelStudioClient(settings) as client, progress_bar() as bar:
        listing = bar.add_task("listing tasks", total=client.project(project).num_tasks)
        prelabeller = Prelabeller(settings, store, client, CeleryWaker(make_celery(settings)))
        result = prelabeller.run(project, on_page=lambda so_far: bar.update(listing, completed=so_far.num_tasks))
        if wait:
            total = result.num_queued + result.num_cached
            _wait(store, project, result.model_version, total, settings.job_lease_s, bar)
            # Only decoding shows that a task has the same sound as one that is held out.
            result.num_held_out = max(result.num_held_out, store.tasks.count(project)[1])
        num_pushed = sum(bool(ids) for _, ids in client.predictions(project, None, shown_name(result.model_version)))
    failed = store.jobs.failed_since(project, result.model_version, began_at)
    failures: list[dict[str, Any]] = [{"task": job.task, "error": job.error} for job in failed]
    failures += [{"task": None, "error": sentence} for sentence in result.unreadable]
    if as_json:
        counts = asdict(result) | {"num_set_aside": result.num_held_out}  # its name before 0.2
        write_json(counts | {"project": project, "num_in_label_studio": num_pushed, "failures": failures})
    else:
        _show_prelabelled(project, result, num_pushed, failures)
    num_due = result.num_tasks - result.num_held_out - result.num_complete - result.num_forgotten
    if failures or (wait and num_pushed < num_due):
        raise typer.Exit(1)


def _wait(store: Any, project: int, model_version: str, total: int, lease_s: float, bar: Any) -> None:
    """Wait until no job or push of the project is open. Raises `NoWorkerError` if no worker is alive for a lease."""
    waiting = bar.add_task("pre-labelling", total=total)
    last_alive_at = store.clock()
    while left := store.jobs.num_open(project, model_version) + store.predictions.num_owed(project):
        bar.update(waiting, completed=max(0, total - left))
        if store.catalog.workers(lease_s):
            last_alive_at = store.clock()
        elif store.clock() - last_alive_at > lease_s:
            raise NoWorkerError(
                f"No worker is alive, and {counted(left, 'task')} {plural(left, 'waits', 'wait')}: start one "
                "with `clapboard worker`. They stay queued."
            )
        time.sleep(_POLL_S)
    bar.update(waiting, completed=total)


def _report(report: Any, label_space: LabelSpace) -> dict[str, Any]:
    controls = [
        {"name": control.name, "suggested": control.predicted, "why_not": control.why_not_predicted}
        for control in label_space.controls
    ]
    about = {"title": report.project.title, "changes": list(report.changes), "warnings": list(report.warnings)}
    return about | {"controls": controls}


def _show_connected(project: int, report: Any, label_space: LabelSpace) -> None:
    from clapboard.labels.coverage import remedy, with_suggestions, without_suggestions

    for change in report.changes:
        console().print(f"[green]✓[/] {escape(change)}", highlight=False)
    for warning in report.warnings:
        errors_console().print(f"[yellow]![/] {escape(warning)}", highlight=False)
    for reason in without_suggestions(label_space):
        console().print(f"[yellow]–[/] {escape(reason)}", highlight=False)
    title = f"Project {project} “{report.project.title}”"
    if label_space.suggested:
        sentence = f"{title} gets its suggestions for {with_suggestions(label_space)} from {report.model_version}.\n"
        console().print(f"{sentence}Next: clapboard prelabel --project {project}", highlight=False, markup=False)
    else:
        sentence = f"{title} is connected, but nothing in it gets suggestions. {remedy(label_space)}"
        errors_console().print(f"[red]NO[/] {escape(sentence)}", highlight=False)


def _show_prelabelled(project: int, result: Any, num_pushed: int, failures: list[dict[str, Any]]) -> None:
    console().print(
        f"Project {project}: {num_pushed} of {counted(result.num_tasks, 'task')} {plural(num_pushed, 'has', 'have')} a "
        f"suggestion by {result.model_version} "
        f"({result.num_queued} computed now, {result.num_cached} from the store, {result.num_present} there before).",
        highlight=False,
    )
    if result.num_held_out:
        console().print(
            f"{counted(result.num_held_out, 'task')} held out without a suggestion, so that people's labels there can "
            "judge a model.",
            highlight=False,
        )
    if result.num_forgotten:
        console().print(
            f"{counted(result.num_forgotten, 'task')} {plural(result.num_forgotten, 'was', 'were')} forgotten by "
            f"`clapboard forget` and {plural(result.num_forgotten, 'gets', 'get')} no suggestion any more: delete "
            f"{plural(result.num_forgotten, 'it', 'them')} in Label Studio, too.",
            highlight=False,
        )
    if failures:
        table = Table("task", "reason", title=f"{len(failures)} without a suggestion")
        for failure in failures[:100]:
            table.add_row(str(failure["task"] or "–"), escape(failure["error"]))
        console().print(table)
