"""`import`: tables of events become tasks with annotations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from clapboard.cli.output import (
    AsJson,
    ProjectId,
    console,
    errors_console,
    printable,
    progress_bar,
    require_text,
    settings_with,
    write_json,
)
from clapboard.errors import RequestError

if TYPE_CHECKING:
    from clapboard.event_tables.event_row import EventRow
    from clapboard.project.imported_events import ImportReport
    from clapboard.store import Store

FORMATS = ("auto", "raven", "audacity", "csv", "aoef", "hf")

LicenceKey = Annotated[str, typer.Option(help="Key of a recording's licence in the tasks' data.")]
SourceKey = Annotated[str, typer.Option(help="Key of where a recording is from in the tasks' data.")]


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("import")(import_events)


def import_events(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Tables; folders of data sets.")],
    project: ProjectId,
    file_format: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}; auto: what each file shows.")
    ] = "auto",
    upload: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Upload recordings that no task has from this folder.")
    ] = None,
    uri: Annotated[
        str,
        typer.Option(help="Address of recordings that no task has, with {name} or {path}, as in “s3://bucket/{name}”."),
    ] = "",
    recording: Annotated[
        str, typer.Option(help="Recording of a table that names none; by default it is named after its table.")
    ] = "",
    label_column: Annotated[str, typer.Option(help="Column, or key of tags, that has the labels.")] = "",
    control: Annotated[str, typer.Option(help="Control that takes the labels, if several have them.")] = "",
    ground_truth: Annotated[bool, typer.Option("--ground-truth", help="Mark annotations as ground truth.")] = False,
    licence_key: LicenceKey = "licence",
    source_key: SourceKey = "source",
    as_json: AsJson = False,
) -> None:
    """Make tasks with annotations of tables of events. Can be stopped and run again: nothing is there twice.

    A recording's task is found by its file name, or made with --upload or --uri. Exit code 1 if something is skipped.
    """
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.project.imported_events import EventImport, ImportOptions, ImportReport, grouped
    from clapboard.store import Store

    require_text([recording, label_column, control, uri, licence_key, source_key], "The option")
    if upload is not None and uri:
        raise RequestError("Recordings are either uploaded or at an address: choose one of --upload and --uri.")
    options = ImportOptions(uri, upload, control, ground_truth, licence_key, source_key)
    settings = settings_with()
    report = ImportReport(project)
    rows = itertools.chain.from_iterable(
        _rows(file, file_format, recording, label_column, report.skip) for file in files
    )
    by_recording = grouped(rows, report)
    store = Store.open(settings)
    with LabelStudioClient(settings) as client, progress_bar() as bar:
        shown = bar.add_task("import", total=len(by_recording))
        importing = EventImport(client, project, options, report, lambda task: _duration(store, project, task))
        importing.run(by_recording, lambda done, total: bar.update(shown, completed=done, total=total))
    store.close()
    _end(report, as_json)


def _rows(
    file: Path, file_format: str, recording: str, label_column: str, skip: Callable[[str], object]
) -> Iterator[EventRow]:
    from clapboard.event_tables.event_row import shown
    from clapboard.event_tables.formats import format_named, read_events

    chosen = None if file_format == "auto" else format_named(file_format)
    is_empty = True
    for row in read_events(
        file, chosen, recording=recording, label_column=label_column, on_refused=lambda refused: skip(str(refused))
    ):
        is_empty = False
        yield row
    if is_empty:
        skip(f"{shown(file.name)} has no events that can be used: nothing is imported for it.")


def _duration(store: Store, project: int, task: int) -> float | None:
    """The length of the task's recording in seconds, if it was read once."""
    if (known := store.tasks.get(project, [task]).get(task)) is None:
        return None
    recording = store.embeddings.recordings([known.uri_key]).get(known.uri_key)
    return recording.duration_s if recording else None


def _end(report: ImportReport, as_json: bool) -> None:
    """Write what was done, and why some of it wasn't. Raises `Exit` if something was skipped."""
    if as_json:
        write_json(asdict(report))
    else:
        show_skipped(report.skipped, report.num_skipped)
        console().print(f"Project {report.project}: {report}", highlight=False, markup=False)
    if report.num_skipped:
        raise typer.Exit(1)


def show_skipped(sentences: list[str], total: int) -> None:
    """Write why some of it was skipped to standard error."""
    for sentence in sentences:
        errors_console().print(f"[yellow]![/] {escape(printable(sentence))}", highlight=False)
    if total > len(sentences):
        errors_console().print(f"[yellow]![/] and {total - len(sentences):,} more.", highlight=False)
