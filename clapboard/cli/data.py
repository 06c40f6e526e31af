"""`data build`, `show` and `verify`: data sets of sounds and captions to train on."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, console, errors_console, progress_bar, settings_with, write_json
from clapboard.errors import SettingsError
from clapboard.plurals import counted

if TYPE_CHECKING:
    from training.corpus.manifest import Manifest
    from training.corpus.projects import LabelStudioAccess

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")]

commands = typer.Typer(help="Build and check data sets of sounds and captions.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.add_typer(commands, name="data")


@commands.command()
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...",
            help="Folders, .csv, .jsonl, Hugging Face data sets on disk, .tar shards, project:N of Label Studio.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to, new or empty.")],
    min_s: Annotated[float, typer.Option(help="Minimum length of a sound, in seconds.", min=0)] = 0.3,
    max_s: Annotated[float, typer.Option(help="Maximum length of a sound, in seconds.", min=0)] = 60.0,
    min_words: Annotated[int, typer.Option(help="Minimum number of words in a caption.", min=0)] = 1,
    max_words: Annotated[int, typer.Option(help="Maximum number of words in a caption.", min=1)] = 60,
    language: Annotated[
        str, typer.Option(help="Languages of captions as ISO 639-1 codes, comma-separated, or any.")
    ] = "en",
    min_loudness: Annotated[float, typer.Option(help="Minimum loudness (BS.1770), in LUFS.")] = -60.0,
    max_clipped: Annotated[float, typer.Option(help="Maximum share of samples at full scale.", min=0, max=1)] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the samples' order and of the split.")] = 0,
    samples_per_shard: Annotated[int, typer.Option(help="Maximum number of samples in a tar file.", min=1)] = 512,
    validation_share: Annotated[
        float,
        typer.Option(
            help="Share of the samples to hold out as a validation split; groups stay together.", min=0, max=0.9
        ),
    ] = 0.0,
    threads: Annotated[int, typer.Option(help="Threads that decode; 0: one per core.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Build a data set: filter pairs, merge those of one sound, write shards. Exit code 1 if a sound can't be read."""
    try:
        from training.corpus.build import Plan
        from training.corpus.build import build as build_data_set
    except ModuleNotFoundError as error:
        raise SettingsError(f"Building data sets needs {error.name}: run pip install '.[data]'.") from error
    from training.corpus.filters import Rules
    from training.corpus.sources import open_source

    rules = Rules(min_s, max_s, min_words, max_words, _languages(language), min_loudness, max_clipped)
    plan = Plan(rules, seed, samples_per_shard, validation_share, threads or os.cpu_count() or 1)
    with ExitStack() as opened, progress_bar() as bar:
        opened_sources = [open_source(source, lambda: _label_studio(opened)) for source in sources]
        decoded = bar.add_task("decode", total=None)
        written = bar.add_task("write", total=None)
        manifests = build_data_set(
            opened_sources,
            out,
            plan,
            on_pair=lambda: bar.advance(decoded),
            on_sample=lambda total: bar.update(written, advance=1, total=total),
        )
    _print(out, manifests, as_json)
    unreadable = manifests[0].unreadable
    for sound in unreadable:
        errors_console().print(f"[red]{escape(sound.name)}[/]: {escape(sound.error)}", highlight=False)
    if unreadable:
        raise typer.Exit(1)


@commands.command()
def show(folder: Folder, as_json: AsJson = False) -> None:
    """Show what a data set holds, and what was left out when it was built."""
    from training.corpus.manifest import data_sets_in, read_manifest

    _print(folder, [read_manifest(data_set) for data_set in data_sets_in(folder)], as_json)


@commands.command()
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Compare every shard with its checksum. Exit code 1 if one is missing or damaged."""
    from training.corpus.manifest import damages, data_sets_in, read_manifest

    manifests = {data_set: read_manifest(data_set) for data_set in data_sets_in(folder)}
    num_shards = sum(len(manifest.shards) for manifest in manifests.values())
    faults: dict[str, str] = {}
    with progress_bar() as bar:
        checked = bar.add_task("verify", total=num_shards)
        for data_set, manifest in manifests.items():
            damaged = damages(data_set, manifest, lambda: bar.advance(checked))
            faults |= {str(data_set / shard): fault for shard, fault in damaged.items()}
    if as_json:
        write_json({"shards": num_shards, "damaged": faults})
    else:
        for shard, fault in faults.items():
            errors_console().print(f"[red]{escape(shard)}[/] {escape(fault)}.", highlight=False)
        as_written = f"{num_shards - len(faults)} of {counted(num_shards, 'shard')} as written"
        console().print(f"{as_written}.", highlight=False)
    if faults:
        raise typer.Exit(1)


def _languages(codes: str) -> tuple[str, ...]:
    languages = tuple(code for part in codes.split(",") if (code := part.strip().lower()))
    if not languages:
        raise SettingsError("There are no languages: give ISO 639-1 codes such as en,de, or any.")
    return () if "any" in languages else languages


def _label_studio(opened: ExitStack) -> LabelStudioAccess:
    """Label Studio and the store, open until the build ends."""
    from clapboard.installation.public_address import audio_sources
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.store import Store
    from training.corpus.projects import LabelStudioAccess

    settings = settings_with(writes_for_others=True)
    store = Store.open(settings)
    opened.callback(store.close)
    client = opened.enter_context(LabelStudioClient(settings))
    return LabelStudioAccess(settings, store, client, audio_sources(settings, store))


def _print(folder: Path, manifests: list[Manifest], as_json: bool) -> None:
    if as_json:
        write_json({"folder": str(folder), "data_sets": [manifest.model_dump() for manifest in manifests]})
        return
    from training.corpus.pairs import as_text

    out = console()
    splits = Table("split", "samples", "hours", "captions", "tags", "shards", "MB", title=escape(as_text(str(folder))))
    for manifest in manifests:
        hours, megabytes = manifest.duration_s / 3600, sum(shard.bytes for shard in manifest.shards) / 1e6
        texts = (str(manifest.captions), str(manifest.tags), str(len(manifest.shards)))
        splits.add_row(manifest.split or "–", str(manifest.samples), f"{hours:.2f}", *texts, f"{megabytes:.1f}")
    out.print(splits)
    sources = Table("source", "kind", "pairs", title="Sources")
    for source in manifests[0].sources:
        sources.add_row(escape(source.given), source.kind, str(source.pairs))
    out.print(sources)
    if manifests[0].dropped or manifests[0].dropped_captions:
        out.print(_left_out(manifests[0]))
    kept = sum(manifest.samples for manifest in manifests)
    out.print(f"{kept:,} of {counted(manifests[0].found, 'pair')} kept.", highlight=False)


def _left_out(manifest: Manifest) -> Table:
    table = Table("reason", "pairs", "texts", title="Left out")
    for reason in dict.fromkeys((*manifest.dropped, *manifest.dropped_captions)):
        counts = (manifest.dropped.get(reason, 0), manifest.dropped_captions.get(reason, 0))
        table.add_row(reason.replace("_", " "), *(str(count) if count else "" for count in counts))
    if "duplicate" in manifest.dropped:
        table.caption = "captions and tags of duplicates are merged into the first sample of the sound"
    return table
