"""`search`: texts and sounds → the places of a project that sound most like them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clapboard.cli.output import AsJson, Model, ProjectId, console, settings_with, write_json

if TYPE_CHECKING:
    from clapboard.clap import ClapEncoder
    from clapboard.settings import Settings
    from clapboard.store.catalog import Encoder

_SOUND = "FILE[:START-END]"


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(search)


def search(
    project: ProjectId,
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="A sound, such as “dog bark”.")] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_SOUND, help="A sound that it shall be like, in seconds or M:SS; also task:N[:START-END]."
        ),
    ] = None,
    not_like: Annotated[list[str] | None, typer.Option(metavar=_SOUND, help="One that it shall be unlike.")] = None,
    task: Annotated[list[int] | None, typer.Option(help="The same as --like task:N.", min=1)] = None,
    top: Annotated[int, typer.Option(help="How many places to show.", min=1, max=1000)] = 20,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """The places of a project's audio most like texts, files and tasks, and unlike others: a line each.

    Windows side by side are one place. The score is the best one's cosine, less that of the project's average window.
    """
    if not (texts or like or task):
        raise typer.BadParameter("give a text, --like or --task")
    from clapboard.memory import Memory
    from clapboard.search.examples import Listener, OfTask, Wanted, read_sound
    from clapboard.search.project import ProjectSearch
    from clapboard.sources import AudioSources
    from clapboard.store import Store
    from clapboard.store.vectors import VectorFiles

    settings = settings_with(model=model)
    wanted = Wanted(
        tuple(texts or ()),
        (*map(read_sound, like or ()), *map(OfTask, task or ())),
        tuple(map(read_sound, not_like or ())),
    )
    store = Store.open(settings)
    found = ProjectSearch.open(store, VectorFiles(settings.vectors_dir, store.embeddings), settings.model, project)
    listener = Listener(lambda: _load(settings, found.encoder), Memory())
    places = found.find(wanted, top, listener, AudioSources(settings))
    lines = [place.as_json(project, settings.label_studio_url) for place in places]
    if as_json:
        for line in lines:
            write_json(line)
    else:
        out = console()
        out.print(places_table(lines, out))


def _load(settings: Settings, encoder: Encoder) -> ClapEncoder:
    """The encoder that the project was embedded with. Raises `ModelError` if it is another one here."""
    from clapboard.encoder import load_encoder
    from clapboard.search.project import require_same

    loaded = load_encoder(settings, encoder.model)
    require_same(encoder, loaded.identity.version)
    return loaded


def places_table(lines: list[dict[str, Any]], out: Console) -> Table:
    """A row for each place. In a terminal the task's number is a link into Label Studio; elsewhere it has a column."""
    columns = ["task", "from", "to", "best at", "score", "audio"]
    table = Table(*columns if out.is_terminal else [*columns, "address"])
    for line in lines:
        number = Text(str(line["task"]), Style(link=line["url"]))
        seconds = [f"{line[name]:.1f} s" for name in ("start_s", "end_s", "best_s")]
        cells: list[str | Text] = [number, *seconds, f"{line['score']:.3f}", escape(line["audio"])]
        table.add_row(*cells if out.is_terminal else [*cells, escape(line["url"])])
    return table
