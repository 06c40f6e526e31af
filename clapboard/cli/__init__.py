"""`clapboard …`: the one way in for people. Each command imports its role inside itself, and starts fast.

Exit codes: 0 done · 1 done, but some of it failed (each failure is shown) · 2 wrong usage or settings · 3 something
that is needed isn't there (Label Studio, a worker, a model).
"""

from __future__ import annotations

import json
import sys

import typer
from rich.markup import escape

from clapboard.cli import (
    caption,
    config,
    convert,
    data,
    evaluate,
    jobs,
    ledger,
    models,
    predict,
    pretrain,
    project,
    run,
    search,
    sync,
    tables,
    train,
)
from clapboard.cli.output import errors_console
from clapboard.errors import ClapboardError

app = typer.Typer(
    name="clapboard",
    help="Pre-labels audio in Label Studio with CLAP; people approve or correct.",
    epilog="Exit codes: 0 done, 1 some of it failed, 2 wrong usage or settings, 3 something needed isn't there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (
    run,
    project,
    train,
    models,
    ledger,
    sync,
    caption,
    data,
    pretrain,
    evaluate,
    tables,
    predict,
    search,
    convert,
    jobs,
    config,
):
    module.add_commands(app)


def main() -> None:
    """Run the command line; an error that was foreseen is one sentence and an exit code."""
    try:
        app()
    except ClapboardError as error:
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": error.code, "detail": str(error)}) + "\n")
        else:
            errors_console().print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        raise SystemExit(error.exit_code) from None
