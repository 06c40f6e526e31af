"""`train`: finetuning at the press of a key."""

from __future__ import annotations

import typer

from clapboard.cli.output import AsJson, Model, ProjectId, settings_with
from clapboard.cli.waiting import Wait, run_job


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(train)


def train(project: ProjectId, model: Model = None, wait: Wait = True, as_json: AsJson = False) -> None:
    """Finetune on what people said; the gate decides whether it serves. One training a project at a time."""
    from clapboard.jobs import TRAIN
    from clapboard.store import Store

    settings = settings_with(model=model)
    store = Store.open(settings)
    store.catalog.project(project)
    run_job(settings, store, TRAIN, "train", project, "", wait=wait, as_json=as_json)
