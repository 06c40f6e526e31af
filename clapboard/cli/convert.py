"""`clapboard convert`: LAION's original checkpoints, made to be served."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, console, write_json


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(convert)


def convert(
    file: Annotated[Path, typer.Argument(help="LAION's checkpoint, a .pt.", metavar="FILE.pt", dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="New folder to write, for CLAPBOARD_MODEL.", metavar="OUT")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of the tokenizer; as it comes, the text tower's usual one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint of LAION's own code into a folder that Clapboard and transformers load.

    It is kept only if it gives the original's embeddings.
    """
    from clapboard.laion import convert as convert_checkpoint

    found = convert_checkpoint(file, out, tokenizer=tokenizer)
    if as_json:
        write_json({"model": str(out)} | asdict(found))
        return
    table = Table(
        "audio tower", "text tower", "dim", "parameters", "audio off by", "text off by", title=escape(str(out))
    )
    audio = f"{found.audio}, fused" if found.is_fused else found.audio
    sizes = str(found.dim), f"{found.num_parameters:,}"
    table.add_row(audio, found.text, *sizes, f"{found.audio_distance:.1e}", f"{found.text_distance:.1e}")
    table.caption = "off by: the largest distance of a unit-length embedding from the original's"
    console().print(table)
