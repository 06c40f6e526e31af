"""`sync`: what people said in Label Studio while its events got lost."""

from __future__ import annotations

from dataclasses import asdict

import typer

from clapboard.cli.output import AsJson, ProjectId, console, errors_console, settings_with, write_json


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(sync)


def sync(project: ProjectId, as_json: AsJson = False) -> None:
    """Read a project's annotations through the API and enter what no event has told. Can be run at any time."""
    from clapboard.feedback.sync import reconcile
    from clapboard.jobs import LEARN, CeleryBell, make_celery
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.store import Store
    from clapboard.store.jobs import JobRequest

    settings = settings_with()
    store = Store.open(settings)
    with LabelStudioClient(settings) as client, errors_console().status("reading annotations"):
        found = reconcile(store, client, project)
    if project in store.catalog.connected_projects():
        # The worker's own look, short now, goes on to learn from it.
        store.jobs.add(LEARN, [JobRequest("sync", project)])
        CeleryBell(make_celery(settings)).ring(LEARN)
    store.close()
    if as_json:
        write_json(asdict(found))
        return
    console().print(f"Project {project}: {found}", highlight=False, markup=False)
    if found.label_config_changed:
        errors_console().print(
            f"[yellow]![/] The label config has changed: run `clapboard connect --project {project}` if the project's "
            "suggestions don't follow.",
            highlight=False,
        )
