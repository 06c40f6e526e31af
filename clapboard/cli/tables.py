"""`evaluate tables`: the tables of the CLAP papers, computed from public data sets on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.evaluate import Prompts, commands
from clapboard.cli.fast_imports import fast_imports
from clapboard.cli.output import AsJson, Model, console, errors_console, progress_bar, settings_with, write_json
from clapboard.errors import NoDataSetError

if TYPE_CHECKING:
    from clapboard.model.clap import ClapEncoder, EncoderIdentity
    from training.benchmarks.benchmark import Benchmark, Source
    from training.benchmarks.cache import EmbeddingCache
    from training.benchmarks.tables import Column, Result, TableLayout

_MAX_NAMED_CLIPS = 5  # missing clips that are named, per data set


def add_commands(_: typer.Typer) -> None:
    """Register this module's command among those of `evaluate`."""
    commands.command()(tables)


def tables(
    data: Annotated[Path, typer.Option(help="Folder of the data sets, each as its authors publish it.")],
    model: Model = None,
    sets: Annotated[str, typer.Option(help="Data sets, comma-separated, such as esc50,clotho; by default all.")] = "",
    supervised: Annotated[bool, typer.Option(help="Train a linear probe too, on the training clips.")] = True,
    prompts: Prompts = "template",
    cache: Annotated[Path | None, typer.Option(help="Folder of the embeddings; by default in MODEL_DIR.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval, zero-shot and supervised accuracy, and print them beside published figures.

    Missing data sets are named and left out. A figure with * is for fewer clips than the data set has. Embeddings are
    kept, so that a run that was stopped continues. Exit code 1 if clips are missing or damaged; 3 if a data set of
    --sets is missing, or all are.
    """
    with fast_imports():
        from clapboard.model.load import load_encoder
        from training.benchmarks.cache import EmbeddingCache
        from training.benchmarks.registry import choose, locate
        from training.benchmarks.tables import layouts

    settings = settings_with(model=model)
    chosen = choose([key.strip() for key in sets.split(",") if key.strip()])
    places = [(source, locate(source, data)) for source in chosen]
    benchmarks = [source.read(folder) for source, folder in places if folder is not None]
    absent = [source for source, folder in places if folder is None]
    if absent and (sets or not benchmarks):
        raise NoDataSetError(" ".join(_absence(source, data) for source in absent))
    encoder = load_encoder(settings)
    with EmbeddingCache(cache or settings.benchmarks_dir, encoder.identity) as stored:
        results = _results(encoder, benchmarks, stored, with_probe=supervised, captions=prompts == "captions")
    if as_json:
        _write_json(encoder.identity, prompts, results, absent, {source.key for source in chosen})
    else:
        for layout in layouts({source.key for source in chosen}):
            _show_table(encoder.identity.model, prompts, layout, results)
        _show_folds(results)
        _show_clips(results)
    _finish(results, absent, data)


def _results(
    encoder: ClapEncoder, benchmarks: Sequence[Benchmark], stored: EmbeddingCache, *, with_probe: bool, captions: bool
) -> list[Result]:
    from training.benchmarks.tables import evaluate, needed_clips

    results = []
    with progress_bar() as bar:
        for benchmark in benchmarks:
            embedded = bar.add_task(benchmark.title, total=len(needed_clips(benchmark, with_probe=with_probe)))
            done = partial(bar.advance, embedded)
            result = evaluate(benchmark, encoder, stored, with_probe=with_probe, captions=captions, on_clip=done)
            results.append(result)
    return results


def _write_json(
    identity: EncoderIdentity, prompts: str, results: Sequence[Result], absent: Sequence[Source], keys: set[str]
) -> None:
    from training.benchmarks.published import PUBLISHED

    published = [
        {"model": row.model, "source": row.source, "per_cent": {key: dict(row.figures[key]) for key in shared}}
        for row in PUBLISHED
        if (shared := sorted(keys & row.figures.keys()))
    ]
    missing = [{"key": source.key, "title": source.title, "looked_for": source.looked_for} for source in absent]
    write_json(
        {"model": identity.model, "encoder": identity.version, "dtype": identity.dtype, "prompts": prompts}
        | {"sets": [result.to_json() for result in results], "absent": missing, "published": published}
    )


def _show_table(model: str, prompts: str, layout: TableLayout, results: Sequence[Result]) -> None:
    """Print our row, and the published rows that have a figure in one of the columns."""
    from training.benchmarks.published import PUBLISHED, ZERO_SHOT

    shown = [result for result in results if result.key in {column.key for column in layout.columns}]
    notes = [layout.note, *(f"* {result.title} on {result.shortfall}." for result in shown if result.shortfall)]
    caption = "\n".join(filter(None, notes))
    table = Table("model", title=layout.title, caption=caption, title_justify="left", caption_justify="left")
    for column in layout.columns:
        table.add_column(column.header, justify="right")
    table.add_column("source", overflow="fold")
    measured = {
        result.key: {
            measure: f"{100 * value:.1f}{'*' if result.shortfall else ''}" for measure, value in result.measures.items()
        }
        for result in shown
    }
    if prompts != "template" and any(column.measure == ZERO_SHOT for column in layout.columns):
        model += f", --prompts {prompts}"
    table.add_row(f"[bold]{escape(model)}[/]", *_cells(layout.columns, measured), "measured here", end_section=True)
    for row in PUBLISHED:
        if any(column.measure in row.figures.get(column.key, {}) for column in layout.columns):
            table.add_row(escape(row.model), *_cells(layout.columns, row.figures), escape(row.source))
    console().print(table)


def _cells(columns: Sequence[Column], figures: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [figures.get(column.key, {}).get(column.measure, "–") for column in columns]


def _show_folds(results: Sequence[Result]) -> None:
    """Print accuracy per fold, since a model may have been trained on some of them."""
    table = Table("set", "fold", "zero-shot", "linear probe", title="Accuracy by fold, %", title_justify="left")
    for result in results:
        by_text = result.zero_shot.by_fold if result.zero_shot else {}
        by_probe = result.supervised.by_fold if result.supervised else {}
        for fold, value in by_text.items():
            probe = f"{100 * by_probe[fold]:.1f}" if fold in by_probe else "–"
            table.add_row(result.title, escape(fold), f"{100 * value:.1f}", probe)
        table.add_section()
    if table.row_count:
        console().print(table)


def _show_clips(results: Sequence[Result]) -> None:
    table = Table("set", "listed", "heard", "missing", "unreadable", title="Clips", title_justify="left")
    for result in results:
        counts = (result.num_listed, result.num_heard, len(result.missing), len(result.unreadable))
        table.add_row(result.title, *map(str, counts))
    console().print(table)


def _absence(source: Source, data: Path) -> str:
    return f"{source.title} isn't in {data}: no folder has {source.looked_for}."


def _finish(results: Sequence[Result], absent: Sequence[Source], data: Path) -> None:
    """Name what is missing and what can't be decoded. Exit with code 1 if clips are missing or damaged."""
    out = errors_console()
    for source in absent:
        out.print(escape(_absence(source, data)), highlight=False)
    for result in results:
        for clip in result.unreadable:
            out.print(f"[red]{escape(str(clip.path))}[/]: {escape(clip.reason)}", highlight=False)
        if result.missing:
            names = ", ".join(result.missing[:_MAX_NAMED_CLIPS])
            more = (
                f" and {len(result.missing) - _MAX_NAMED_CLIPS} more" if len(result.missing) > _MAX_NAMED_CLIPS else ""
            )
            out.print(f"{result.title} lacks the audio of {escape(names)}{more}.", highlight=False)
    if any(result.missing or result.unreadable for result in results):
        raise typer.Exit(1)
