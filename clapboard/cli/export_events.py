"""`export`: what annotators agree on, or what is suggested, as tables of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clapboard.cli.import_events import FORMATS, LicenceKey, SourceKey, show_skipped
from clapboard.cli.output import (
    AsJson,
    ProjectId,
    console,
    printable,
    progress_bar,
    require_text,
    settings_with,
    write_json,
)
from clapboard.errors import NotFoundError, RequestError
from clapboard.plurals import counted

if TYPE_CHECKING:
    from clapboard.project.exported_events import EventExport, ExportedRecording, ExportOptions, ExportReport
    from clapboard.store import Store


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("export")(export_events)


def export_events(
    project: ProjectId,
    out: Annotated[Path, typer.Option(metavar="PATH", help="File to write, or folder for raven, audacity and hf.")],
    file_format: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS[1:])}.")] = "csv",
    what: Annotated[str, typer.Option(help="consensus: what annotators agree on; or suggestions.")] = "consensus",
    version: Annotated[str, typer.Option(help="Model version whose suggestions; by default the one shown.")] = "",
    clips_as_events: Annotated[
        bool, typer.Option("--clips-as-events", help="Write labels of whole recordings as events of their length.")
    ] = False,
    annotators: Annotated[str, typer.Option(help="How to call annotators: id, name or none.")] = "id",
    licence_key: LicenceKey = "licence",
    source_key: SourceKey = "source",
    split: Annotated[str, typer.Option(help="Splits of hf, such as “train=0.8,test=0.2”.")] = "train=1",
    group: Annotated[
        str, typer.Option(help="What stays in one split: recording, annotator, or a key of the tasks' data.")
    ] = "recording",
    as_json: AsJson = False,
) -> None:
    """Write a project's events as tables or data sets. Exit code 1 if something can't be written."""
    from clapboard.event_tables.formats import format_named
    from clapboard.installation.public_address import audio_sources
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.labels.label_config import parse_label_config
    from clapboard.project.exported_events import EventExport, ExportOptions, ExportReport
    from clapboard.project.exported_files import Destination, require_place, splits, write_files
    from clapboard.store import Store

    require_text([version, licence_key, source_key, group, split], "The option")
    for given, known, name in (
        (what, ("consensus", "suggestions"), "--what"),
        (annotators, ("id", "name", "none"), "--annotators"),
    ):
        if given not in known:
            raise RequestError(f"{name} is one of {', '.join(known)}.")
    chosen = format_named(file_format)
    require_place(out, chosen)
    settings = settings_with(writes_for_others=True)
    store = Store.open(settings)
    report = ExportReport(project)
    sources = audio_sources(settings, store)
    with LabelStudioClient(settings) as client, progress_bar() as bar:
        record = client.project(project)
        options = ExportOptions(
            what == "suggestions", version or record.model_version, clips_as_events, annotators, licence_key, source_key
        )
        if options.suggestions:
            _require_version(store, project, options.model_version)
        space = parse_label_config(record.label_config)

        def export_with(options: ExportOptions, report: ExportReport) -> EventExport:
            return EventExport(store, client, project, space, options, report)

        group_of = _group_of(group, lambda: export_with(replace(options, annotators="id"), ExportReport(project)))

        @contextmanager
        def fetch(recording: ExportedRecording) -> Iterator[Path]:
            file = sources.fetch(recording.uri, task_id=recording.task)
            try:
                yield file.path
            finally:
                file.release()

        destination = Destination(out, fetch, record.title, splits(split, group_of), settings.max_audio_s)
        shown = bar.add_task("export", total=record.num_tasks)
        recordings = export_with(options, report).recordings(lambda count: bar.advance(shown, count))
        write_files(recordings, chosen, destination, report)
    store.close()
    if as_json:
        write_json(asdict(report) | {"out": str(out)})
    else:
        show_skipped(report.skipped, report.num_skipped)
        console().print(_sentence(report, out), highlight=False, markup=False)
    if report.num_skipped:
        raise typer.Exit(1)


def _group_of(group: str, export: Callable[[], EventExport]) -> Callable[[ExportedRecording], str]:
    """What stays together in a split."""
    if group == "recording":
        return lambda recording: recording.name
    if group == "annotator":
        from clapboard.project.exported_files import annotator_groups

        groups: dict[int, str] = {}

        def of_annotators(recording: ExportedRecording) -> str:
            if not groups:
                groups.update(annotator_groups(export().recordings()))
            return groups.get(recording.task, recording.name)

        return of_annotators
    return lambda recording: str(recording.data.get(group) or recording.name)


def _require_version(store: Store, project: int, version: str) -> None:
    """Raises `NotFoundError` if there are no suggestions of the version, or of the name in Label Studio."""
    versions = store.predictions.model_versions(project)
    if version not in {*versions, *store.predictions.shown_names(project)}:
        there = ", ".join(versions) or f"none: run `clapboard prelabel --project {project}`"
        asked = f"the version {printable(version)}" if version else "a version that is shown"
        raise NotFoundError(f"Project {project} has no suggestions of {asked}; there are {there}.")


def _sentence(report: ExportReport, out: Path) -> str:
    events, recordings = counted(report.num_rows, "event"), counted(report.num_recordings, "recording")
    return (
        f"Project {report.project}: {events} and labels of {recordings} are in {printable(str(out))} "
        f"({counted(report.num_files, 'file')}); {counted(report.num_unanswered, 'task')} had none; "
        f"{report.num_skipped:,} skipped."
    )
