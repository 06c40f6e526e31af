"""`train`: finetune a project's encoder now."""

from __future__ import annotations

import typer

from clapboard.cli.output import AsJson, Model, ProjectId, errors_console, settings_with, write_json
from clapboard.cli.waiting import Wait, follow_job


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(train)


def train(project: ProjectId, model: Model = None, wait: Wait = True, as_json: AsJson = False) -> None:
    """Finetune the encoder on a project's annotations; the gate decides whether the result serves.

    A project has one training at a time.
    """
    from clapboard.project.training_request import request_training
    from clapboard.queue.celery_app import TRAIN
    from clapboard.store import Store

    settings = settings_with(model=model)
    store = Store.open(settings)
    store.catalog.project(project)
    requested = request_training(settings, store, project)
    if requested.job is None:
        refusal = {"job": None, "state": "failed", "error_code": "training", "outcome": requested.message}
        write_json(refusal) if as_json else errors_console().print(requested.message, highlight=False, markup=False)
        raise typer.Exit(1)
    if not as_json:
        errors_console().print(requested.message, highlight=False, markup=False)
    follow_job(settings, store, TRAIN, requested.job, wait=wait, as_json=as_json)
