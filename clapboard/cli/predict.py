"""`predict`: files on disk, no server at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clapboard.cli.output import AsJson, Model, console, errors_console, progress_bar, settings_with, write_json
from clapboard.errors import AudioError


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(predict)


def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Audio files.")],
    labels: Annotated[str, typer.Option(help="Comma-separated labels, such as “dog bark,rain”.")],
    model: Model = None,
    fusion: Annotated[
        bool | None,
        typer.Option(
            "--fusion/--windows",
            help="Hear each file as a whole, by a checkpoint with feature fusion, or 10 s by 10 s (CLAPBOARD_FUSION).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score audio files against labels: a line per file. Exit code 1 if one of them can't be read."""

    from clapboard import prediction
    from clapboard.encoder import load_encoder
    from clapboard.head import control_scores, zero_shot_head
    from clapboard.labels import label_space_of

    label_space = label_space_of(labels.split(","))
    (control,) = label_space.controls
    settings = settings_with(model=model, fusion=fusion)
    encoder = load_encoder(settings)
    weights = prediction.compute_class_weights(label_space, encoder.embed_texts)
    (head,) = zero_shot_head(label_space, weights, encoder.logit_scale).controls
    version = prediction.model_version(encoder.identity, label_space)
    failed = False
    with progress_bar() as bar:
        for path in bar.track(paths, description="predict"):
            line: dict[str, Any] = {"path": str(path)}
            try:
                if not path.is_file():
                    raise AudioError(f"{path.name} doesn't exist or is no file: check its path.")
                embeddings = encoder.embed_file(path)
            except (AudioError, OSError) as error:
                failed = True
                line["error"] = str(error) if isinstance(error, AudioError) else f"{path.name}: {error.strerror}."
            else:
                scores = control_scores(control, head, embeddings)
                named = zip([label.value for label in control.labels], scores.tolist(), strict=True)
                line |= {"scores": dict(named), "model_version": version}
            _write(line, as_json)
    if failed:
        raise typer.Exit(1)


def _write(line: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(line)
        return
    path = os.fsencode(line["path"]).decode("utf-8", "replace")
    if "error" in line:
        errors_console().print(f"[red]{escape(path)}[/]: {escape(line['error'])}", highlight=False)
    else:
        best = sorted(line["scores"].items(), key=lambda item: -item[1])
        told = "  ".join(f"{label} {score:.2f}" for label, score in best[:5])
        console().print(f"{path}: {told}", highlight=False, markup=False)
