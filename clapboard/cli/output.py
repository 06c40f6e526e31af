"""How commands write: tables and bars for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from clapboard.settings import Settings, load_settings

_WIDTH_OF_A_FILE = 160

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
ProjectId = Annotated[int, typer.Option("--project", "-p", help="Number of the Label Studio project.", min=1)]
Model = Annotated[str | None, typer.Option("--model", help="CLAP checkpoint: hub id, folder, or `mini`.")]


def console() -> Console:
    """Standard output, for people; wide where nobody sees its edge, so that no table is cut."""
    is_terminal = sys.stdout.isatty()
    return Console(soft_wrap=not is_terminal, width=None if is_terminal else _WIDTH_OF_A_FILE)


def errors_console() -> Console:
    """Standard error: messages and progress, so that standard output stays clean."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty())


def write_json(value: Any) -> None:
    """One JSON value on one line."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def progress_bar() -> Progress:
    """A bar with count and remaining time, on standard error; on no terminal it stays silent."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors_console(), disable=not sys.stderr.isatty())


def settings_with(**overrides: Any) -> Settings:
    """The settings in force, with what the command line overrides."""
    return load_settings().with_overrides(**overrides)
