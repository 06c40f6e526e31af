"""`train`: finetune a project's encoder now."""

from __future__ import annotations

from typing import Annotated

import typer

from clapboard.cli.models import find_version
from clapboard.cli.output import AsJson, Model, ProjectId, errors_console, settings_with, write_json
from clapboard.cli.waiting import Wait, follow_job


def add_commands(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command()(train)


def train(
    project: ProjectId,
    repeat: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Instead, repeat the finetuning that made this version.")
    ] = None,
    model: Model = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Finetune the encoder on a project's annotations; the gate decides whether the result serves.

    A project has one training at a time. With --repeat, a version is trained again from the labels and settings that it
    was made from: on the same hardware the same weights come of it. It serves no sooner for that.
    """
    from clapboard.project.training_request import request_training
    from clapboard.queue.celery_app import TRAIN
    from clapboard.store import Store
    from clapboard.store.jobs import JobRequest

    settings = settings_with(model=model)
    store = Store.open(settings)
    store.catalog.project(project)
    if repeat is not None:
        version = find_version(store.versions.of_project(project), project, repeat)
        again = JobRequest("repeat", project, model_version=version.model_version, delay_s=0.0)
        (job,) = store.jobs.add(TRAIN, [again])
        follow_job(settings, store, TRAIN, job, wait=wait, as_json=as_json)
        return
    requested = request_training(settings, store, project)
    if requested.job is None:
        refusal = {"job": None, "state": "failed", "error_code": "training", "outcome": requested.message}
        write_json(refusal) if as_json else errors_console().print(requested.message, highlight=False, markup=False)
        raise typer.Exit(1)
    if not as_json:
        errors_console().print(requested.message, highlight=False, markup=False)
    follow_job(settings, store, TRAIN, requested.job, wait=wait, as_json=as_json)
