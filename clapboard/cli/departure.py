"""`disconnect` and `forget`: take a project out of Clapboard's hands, and delete what is known of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from clapboard.cli.output import AsJson, ProjectId, console, errors_console, settings_with, write_json
from clapboard.errors import RequestError
from clapboard.plurals import counted, plural

if TYPE_CHECKING:
    from clapboard.project.disconnection import Disconnected
    from clapboard.project.forgetting import Forgotten


WAIT_S = 60.0

WaitS = Annotated[float, typer.Option("--wait", help="Seconds to wait for jobs that are running.", min=0)]


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(disconnect)
    app.command()(forget)


def disconnect(project: ProjectId, wait: WaitS = WAIT_S, as_json: AsJson = False) -> None:
    """Take our backend, webhook, tabs and predictions out of a Label Studio project. Can be run again at any time.

    Annotations stay, and so does everything that is known here: `connect` and `prelabel` bring it all back.
    """
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.project.disconnection import disconnect as disconnect_project
    from clapboard.project.lock import ProjectLocks
    from clapboard.store import Store

    settings = settings_with()
    store = Store.open(settings)
    locks = ProjectLocks(store, "clapboard disconnect", settings.job_lease_s)
    announce = errors_console().print
    with LabelStudioClient(settings) as client, locks.hold(project, wait_s=WAIT_S, on_wait=announce):
        gone = disconnect_project(store, client, settings, project, wait_s=wait, on_wait=announce)
    if as_json:
        write_json(gone.as_json())
    else:
        _show_disconnected(gone)


def forget(
    project: ProjectId,
    task: Annotated[
        list[int] | None, typer.Option("--task", help="Only this task; can be given several times.", min=1)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask. Needed where there is no terminal.")] = False,
    label_studio_gone: Annotated[
        bool, typer.Option("--label-studio-gone", help="The project can't be disconnected: forget it all the same.")
    ] = False,
    wait: WaitS = WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Delete everything that is known here about a project or a task, for good.

    That is its tasks, jobs, predictions, events, ledger, labels, versions and heads, and the embeddings, cached audio
    and checkpoints that no other project has. Nothing is written about it any more, whatever arrives.
    """
    from clapboard.project.forgetting import forget as forget_project
    from clapboard.project.forgetting import require_forgettable
    from clapboard.project.lock import ProjectLocks
    from clapboard.store import Store

    settings = settings_with()
    store = Store.open(settings)
    tasks = sorted(set(task or ()))
    require_forgettable(store, project, tasks, is_label_studio_gone=label_studio_gone)
    subject = _subject(project, tasks)
    _confirm(f"Delete everything about {subject}? It can't be brought back.", yes)
    locks = ProjectLocks(store, "clapboard forget", settings.job_lease_s)
    announce = errors_console().print
    with locks.hold(project, wait_s=WAIT_S, on_wait=announce):
        gone = forget_project(store, settings, project, tasks, wait_s=wait, on_wait=announce)
    if as_json:
        write_json({"project": project, "tasks": tasks, "rows": gone.rows} | _files(gone))
    else:
        _show_forgotten(subject, gone)


def _confirm(question: str, yes: bool) -> None:
    """Raises `RequestError` where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError("This deletes for good: add --yes where nobody can be asked.")
    typer.confirm(question, abort=True, err=True)


def _subject(project: int, tasks: list[int]) -> str:
    if not tasks:
        return f"project {project}"
    return f"{plural(len(tasks), 'task')} {', '.join(map(str, tasks))} of project {project}"


def _files(gone: Forgotten) -> dict[str, int]:
    return {"num_files": gone.num_files, "num_folders": gone.num_folders}


def _show_disconnected(gone: Disconnected) -> None:
    if gone.is_empty:
        console().print(f"Project {gone.project} is disconnected already: there was nothing to take out.")
        return
    lines = [f"the backend at {url} was removed" for url in gone.backends]
    lines += [f"the webhook {url} was removed" for url in gone.webhooks]
    lines += [f"the tab “{name}” was removed" for name in gone.tabs]
    lines += [f"{counted(count, 'prediction')} of {version} deleted" for version, count in gone.predictions.items()]
    for line in lines:
        console().print(f"[green]✓[/] {escape(line)}", highlight=False)
    console().print(
        f"Project {gone.project} is disconnected; annotations and the ledger stay.\n"
        f"Back again: clapboard connect --project {gone.project}, then clapboard prelabel --project {gone.project}",
        highlight=False,
        markup=False,
    )


def _show_forgotten(subject: str, gone: Forgotten) -> None:
    for table, count in gone.rows.items():
        console().print(f"[green]✓[/] {escape(f'{count} of {table}')}", highlight=False)
    files = f"{counted(gone.num_files, 'cached file')} and {counted(gone.num_folders, 'folder')} of training"
    num_rows = sum(gone.rows.values())
    console().print(
        f"Forgotten: {subject}, with {counted(num_rows, 'row')}, {files}."
        if num_rows or gone.num_files
        else f"Forgotten: {subject}. There was nothing left to delete.",
        highlight=False,
        markup=False,
    )
