"""`search`: find the places in a project's audio that are most like texts and sounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clapboard.cli.fast_imports import fast_imports
from clapboard.cli.output import (
    AsJson,
    Model,
    ProjectId,
    console,
    errors_console,
    require_text,
    settings_with,
    write_json,
)
from clapboard.errors import RequestError

if TYPE_CHECKING:
    from clapboard.model.clap import ClapEncoder
    from clapboard.search.search_terms import SearchTerms
    from clapboard.settings import Settings
    from clapboard.store import Store
    from clapboard.store.catalog import Encoder

_SOUND = "FILE[:START-END]"


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(search)


def search(
    project: ProjectId,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="A sound to find, such as “dog bark”.")
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(metavar=_SOUND, help="A sound to find: a file or task:N, with start and end in seconds or M:SS."),
    ] = None,
    not_like: Annotated[list[str] | None, typer.Option(metavar=_SOUND, help="A sound to avoid.")] = None,
    task: Annotated[list[int] | None, typer.Option(help="The same as --like task:N.", min=1)] = None,
    top: Annotated[int, typer.Option(help="Number of places to show.", min=1, max=1000)] = 20,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Find the places in a project's audio most like texts, files and tasks, one per line.

    Adjacent windows are one place. Its score is the cosine of its best window, less that of the project's mean window.
    """
    from clapboard.search.search_terms import SearchTerms, TaskSound, read_sound
    from clapboard.store import Store

    if not (texts or like or task):
        raise RequestError("There is nothing to search for: give a text, --like or --task.")
    require_text(texts or [], "The text")
    terms = SearchTerms(
        tuple(texts or ()),
        (*map(read_sound, like or ()), *map(TaskSound, task or ())),
        tuple(map(read_sound, not_like or ())),
    )
    settings = settings_with(model=model)
    store = Store.open(settings)
    matches = _matches(settings, store, project, terms, top, names_model=_names_model(model))
    store.close()
    if as_json:
        write_json({"matches": matches})
    else:
        out = console()
        out.print(places_table(matches, out))


def _matches(
    settings: Settings, store: Store, project: int, terms: SearchTerms, top: int, *, names_model: bool
) -> list[dict[str, Any]]:
    """The matches that a worker finds, which has the model loaded or, without one, that this process finds."""
    from clapboard.queue.celery_app import CeleryWaker, make_celery
    from clapboard.search.portable_request import request_for
    from clapboard.search.search_service import SearchService

    service = SearchService(settings, store, CeleryWaker(make_celery(settings)))
    workers = service.workers()
    if not workers:
        reason = "no worker is alive that serves searches"
    elif names_model and any(worker.model != settings.model for worker in workers):
        reason = f"the workers serve another model than {settings.model}"
    elif (request := request_for(project, terms, top)) is None:
        reason = "its files are too large to be sent to a worker"
    else:
        with errors_console().status("asking a worker"):
            return service.ask(request)
    return _search_here(settings, store, project, terms, top, reason)


def _search_here(
    settings: Settings, store: Store, project: int, terms: SearchTerms, top: int, reason: str
) -> list[dict[str, Any]]:
    from clapboard.installation.public_address import audio_sources
    from clapboard.memo import Memory
    from clapboard.search.example_embedder import ExampleEmbedder
    from clapboard.search.project_search import ProjectSearch
    from clapboard.store.vectors import VectorFiles

    project_search = ProjectSearch.open(
        store, VectorFiles(settings.vectors_dir, store.embeddings), settings.model, project
    )
    errors_console().print(
        f"Loading the model {escape(project_search.encoder.model)}, which takes a while: {escape(reason)}.",
        highlight=False,
    )
    embedder = ExampleEmbedder(
        lambda: _load(settings, project_search.encoder), Memory(), longest_s=settings.max_audio_s
    )
    places = project_search.find(terms, top, embedder, audio_sources(settings, store))
    return [place.as_json(project, settings.label_studio_url) for place in places]


def _names_model(model: str | None) -> bool:
    """Whether an option or a setting names the model; otherwise any worker's model is right."""
    from clapboard.settings import provenance

    return model is not None or provenance()["model"] != "default"


def _load(settings: Settings, encoder: Encoder) -> ClapEncoder:
    """The encoder that the project was embedded with. Raises `ModelError` if the model differs here."""
    with fast_imports():
        from clapboard.model.load import load_encoder
        from clapboard.search.project_search import require_same

    loaded = load_encoder(settings, encoder.model)
    require_same(encoder, loaded.identity.version)
    return loaded


def places_table(lines: list[dict[str, Any]], out: Console) -> Table:
    """A row per place. On a terminal the task's number links to Label Studio; elsewhere a column holds the address."""
    columns = ["task", "from", "to", "best at", "score", "audio"]
    table = Table(*columns if out.is_terminal else [*columns, "address"])
    for line in lines:
        number = Text(str(line["task"]), Style(link=line["url"]))
        seconds = [f"{line[name]:.1f} s" for name in ("start_s", "end_s", "best_s")]
        cells: list[str | Text] = [number, *seconds, f"{line['score']:.3f}", escape(line["audio"])]
        table.add_row(*cells if out.is_terminal else [*cells, escape(line["url"])])
    return table
