"""`search`: a text or a clip → the windows of a project that sound most like it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, Model, ProjectId, console, settings_with, write_json
from clapboard.errors import ModelError, NotFoundError

if TYPE_CHECKING:
    from clapboard.scoring import Array
    from clapboard.settings import Settings
    from clapboard.store.catalog import Encoder


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(search)


def search(
    project: ProjectId,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="A sound, such as “dog bark”.")] = None,
    task: Annotated[int | None, typer.Option(help="Search for what sounds like this task instead.", min=1)] = None,
    top: Annotated[int, typer.Option(help="How many windows to show.", min=1)] = 20,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """The windows of a project's audio that sound most like a text, or like a task's audio: a line each."""
    if (text is None) == (task is None):
        raise typer.BadParameter("give a text or --task, one of the two")
    from clapboard.labels import parse_label_config
    from clapboard.search import ProjectSearch
    from clapboard.serving import find_serving
    from clapboard.sources.uris import read_uri
    from clapboard.store import Store
    from clapboard.store.vectors import VectorFiles

    settings = settings_with(model=model)
    store = Store.open(settings)
    label_space = parse_label_config(store.catalog.project(project).label_config)
    encoder = find_serving(store, settings.model, project, label_space).encoder
    vectors = VectorFiles(settings.vectors_dir, store.embeddings).open(encoder.version, encoder.dtype)
    found = ProjectSearch(store, vectors, project)
    if not len(found.rows):
        raise NotFoundError(
            f"Nothing of project {project} is embedded yet: run `clapboard prelabel --project {project}`."
        )
    if task is not None:
        matches = found.like_task(task, encoder, top)
    else:
        matches = found.by_embedding(_text_embedding(settings, encoder, text or ""), top)
    label_studio = httpx.URL(settings.label_studio_url)
    # An address may have a signature in it, or be the audio itself.
    lines = [asdict(one) | {"audio": read_uri(one.uri, label_studio).name} for one in matches]
    _show(lines, as_json)


def _text_embedding(settings: Settings, encoder: Encoder, text: str) -> Array:
    """The text's embedding `[D]`, made as a label's would be. Raises `LabelConfigError` for none, `ModelError`."""
    import torch

    from clapboard.clap import ClapEncoder
    from clapboard.labels import label_space_of
    from clapboard.prediction import compute_class_weights

    label_space = label_space_of([text])
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    loaded = ClapEncoder.load(
        settings.checkpoint(encoder.model), device=settings.device, dtype=settings.dtype, fusion=settings.fusion
    )
    if loaded.identity.version != encoder.version:
        raise ModelError(
            f"The checkpoint {encoder.model} isn't the one that the workers embedded this project with: use theirs."
        )
    return compute_class_weights(label_space, loaded.embed_texts)[0]


def _show(lines: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        for line in lines:
            write_json({name: value for name, value in line.items() if name != "uri"})
        return
    table = Table("task", "from", "score", "audio")
    for line in lines:
        table.add_row(str(line["task"]), f"{line['start_s']:.1f} s", f"{line['score']:.3f}", escape(str(line["audio"])))
    console().print(table)
