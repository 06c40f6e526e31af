"""`convert`: LAION's original checkpoints → checkpoints that Clapboard serves."""

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
    file: Annotated[Path, typer.Argument(help="LAION's checkpoint, a .pt file.", metavar="FILE.pt", dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="New folder to write to; then set CLAPBOARD_MODEL to it.", metavar="OUT")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of the tokenizer; by default the text tower's usual one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of LAION's own code to a folder that Clapboard and transformers can load.

    The result is kept only if its embeddings equal the original's.
    """
    from clapboard.model.laion import convert as convert_checkpoint

    conversion = convert_checkpoint(file, out, tokenizer=tokenizer)
    if as_json:
        write_json({"model": str(out)} | asdict(conversion))
        return
    table = Table(
        "audio tower", "text tower", "dim", "parameters", "audio off by", "text off by", title=escape(str(out))
    )
    audio = f"{conversion.audio}, fused" if conversion.is_fused else conversion.audio
    sizes = str(conversion.dim), f"{conversion.num_parameters:,}"
    distances = f"{conversion.audio_distance:.1e}", f"{conversion.text_distance:.1e}"
    table.add_row(audio, conversion.text, *sizes, *distances)
    table.caption = "off by: the largest distance of a unit-length embedding from the original's"
    console().print(table)
