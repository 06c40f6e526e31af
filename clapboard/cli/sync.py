"""`sync`: annotations whose events were lost."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from clapboard.cli.output import AsJson, ProjectId, console, errors_console, settings_with, write_json

if TYPE_CHECKING:
    from clapboard.project.sync import Reconciled


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(sync)


def sync(project: ProjectId, as_json: AsJson = False) -> None:
    """Read a project's annotations from Label Studio and record those whose events were lost.

    Can be run at any time. Exit code 1 if an annotation can't be recorded.
    """
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.project.lock import WAIT_S, ProjectLocks
    from clapboard.project.sync import reconcile
    from clapboard.queue.celery_app import LEARN, CeleryWaker, make_celery
    from clapboard.store import Store
    from clapboard.store.jobs import JobRequest

    settings = settings_with()
    store = Store.open(settings)
    locks = ProjectLocks(store, "clapboard sync", settings.job_lease_s)
    with (
        LabelStudioClient(settings) as client,
        errors_console().status("reading annotations"),
        locks.hold(project, wait_s=WAIT_S, on_wait=errors_console().print),
    ):
        reconciled = reconcile(store, client, project)
    if project in store.catalog.connected_projects():
        # The worker's `sync` job finds nothing new, but continues with learning.
        store.jobs.add(LEARN, [JobRequest("sync", project)])
        CeleryWaker(make_celery(settings)).wake(LEARN)
    store.close()
    if as_json:
        write_json(asdict(reconciled))
    else:
        _show(project, reconciled)
    if reconciled.num_refused:
        raise typer.Exit(1)


def _show(project: int, reconciled: Reconciled) -> None:
    console().print(f"Project {project}: {reconciled}", highlight=False, markup=False)
    if reconciled.label_config_changed:
        errors_console().print(
            f"[yellow]![/] The label config has changed: run `clapboard connect --project {project}` if the project's "
            "suggestions don't follow.",
            highlight=False,
        )
