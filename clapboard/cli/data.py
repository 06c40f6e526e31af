"""`data build|show|verify`: sounds and captions from wherever they are, as one data set to train on."""

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

if TYPE_CHECKING:
    from training.corpus.manifest import Manifest
    from training.corpus.projects import LabelStudioAccess

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")]

commands = typer.Typer(help="Data sets of sounds and captions to train on.", no_args_is_help=True)


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
    out: Annotated[Path, typer.Option(help="Folder to write to; a new or an empty one.")],
    min_s: Annotated[float, typer.Option(help="Least length of a sound, in seconds.", min=0)] = 0.3,
    max_s: Annotated[float, typer.Option(help="Greatest length of a sound, in seconds.", min=0)] = 60.0,
    min_words: Annotated[int, typer.Option(help="Fewest words of a caption.", min=0)] = 1,
    max_words: Annotated[int, typer.Option(help="Most words of a caption.", min=1)] = 60,
    language: Annotated[str, typer.Option(help="Comma-separated ISO 639-1 codes of captions, or any.")] = "en",
    min_loudness: Annotated[float, typer.Option(help="Least loudness (BS.1770), in LUFS.")] = -60.0,
    max_clipped: Annotated[float, typer.Option(help="Greatest share of samples at full scale.", min=0, max=1)] = 0.01,
    seed: Annotated[int, typer.Option(help="Decides on the order of the samples, and on the split.")] = 0,
    samples_per_shard: Annotated[int, typer.Option(help="Samples in a tar file at most.", min=1)] = 512,
    validation_share: Annotated[
        float,
        typer.Option(help="Share of the samples that goes to a split of its own, by whole groups.", min=0, max=0.9),
    ] = 0.0,
    threads: Annotated[int, typer.Option(help="Threads that decode; 0: as many as there are cores.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Filter pairs, join those of one sound, and write them as shards. Exit code 1 if a sound can't be read."""
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
        found = [open_source(given, lambda: _label_studio(opened)) for given in sources]
        heard = bar.add_task("listen", total=None)
        written = bar.add_task("write", total=None)
        manifests = build_data_set(
            found,
            out,
            plan,
            on_pair=lambda: bar.advance(heard),
            on_sample=lambda total: bar.update(written, advance=1, total=total),
        )
    _tell(out, manifests, as_json)
    unreadable = manifests[0].unreadable
    for one in unreadable:
        errors_console().print(f"[red]{escape(one.name)}[/]: {escape(one.error)}", highlight=False)
    if unreadable:
        raise typer.Exit(1)


@commands.command()
def show(folder: Folder, as_json: AsJson = False) -> None:
    """What a data set holds, and what was left out when it was built."""
    from training.corpus.manifest import data_sets_in, read_manifest

    _tell(folder, [read_manifest(one) for one in data_sets_in(folder)], as_json)


@commands.command()
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Compare every shard with what was written. Exit code 1 if one is missing or damaged."""
    from training.corpus.manifest import damages, data_sets_in, read_manifest

    found = {one: read_manifest(one) for one in data_sets_in(folder)}
    num_shards = sum(len(manifest.shards) for manifest in found.values())
    faults: dict[str, str] = {}
    with progress_bar() as bar:
        checked = bar.add_task("verify", total=num_shards)
        for one, manifest in found.items():
            damaged = damages(one, manifest, lambda: bar.advance(checked))
            faults |= {str(one / shard): fault for shard, fault in damaged.items()}
    if as_json:
        write_json({"shards": num_shards, "damaged": faults})
    else:
        for shard, fault in faults.items():
            errors_console().print(f"[red]{escape(shard)}[/] {escape(fault)}.", highlight=False)
        console().print(f"{num_shards - len(faults)} of {num_shards} shards are as they were written.", highlight=False)
    if faults:
        raise typer.Exit(1)


def _languages(codes: str) -> tuple[str, ...]:
    wanted = tuple(code for part in codes.split(",") if (code := part.strip().lower()))
    if not wanted:
        raise SettingsError("No language is named: give ISO 639-1 codes such as en,de, or any.")
    return () if "any" in wanted else wanted


def _label_studio(opened: ExitStack) -> LabelStudioAccess:
    """Label Studio and the store, for as long as the build lasts."""
    from clapboard.label_studio.client import LabelStudioClient
    from clapboard.sources import AudioSources
    from clapboard.store import Store
    from training.corpus.projects import LabelStudioAccess

    settings = settings_with()
    store = Store.open(settings)
    opened.callback(store.close)
    client = opened.enter_context(LabelStudioClient(settings))
    return LabelStudioAccess(settings, store, client, AudioSources(settings))


def _tell(folder: Path, manifests: list[Manifest], as_json: bool) -> None:
    if as_json:
        write_json({"folder": str(folder), "data_sets": [manifest.model_dump() for manifest in manifests]})
        return
    from training.corpus.pairs import as_text

    out = console()
    held = Table("split", "samples", "hours", "captions", "tags", "shards", "MB", title=escape(as_text(str(folder))))
    for one in manifests:
        hours, megabytes = one.duration_s / 3600, sum(shard.bytes for shard in one.shards) / 1e6
        texts = (str(one.captions), str(one.tags), str(len(one.shards)))
        held.add_row(one.split or "–", str(one.samples), f"{hours:.2f}", *texts, f"{megabytes:.1f}")
    out.print(held)
    sources = Table("source", "kind", "pairs", title="Sources")
    for source in manifests[0].sources:
        sources.add_row(escape(source.given), source.kind, str(source.pairs))
    out.print(sources)
    if manifests[0].dropped or manifests[0].dropped_captions:
        out.print(_left_out(manifests[0]))
    kept = sum(manifest.samples for manifest in manifests)
    out.print(f"{kept} of {manifests[0].found} pairs are kept.", highlight=False)


def _left_out(manifest: Manifest) -> Table:
    table = Table("reason", "pairs", "texts", title="Left out")
    for reason in dict.fromkeys((*manifest.dropped, *manifest.dropped_captions)):
        counts = (manifest.dropped.get(reason, 0), manifest.dropped_captions.get(reason, 0))
        table.add_row(reason.replace("_", " "), *(str(count) if count else "" for count in counts))
    if "duplicate" in manifest.dropped:
        table.caption = "a duplicate's captions and tags are joined with those of the first of its sound"
    return table
