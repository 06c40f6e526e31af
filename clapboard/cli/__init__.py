"""The command line. Each command imports what it needs when it runs, so that all of them start fast.

Exit codes: 0 done · 1 done, but some of it failed (each failure is shown) · 2 wrong usage or settings · 3 something
needed isn't there (Label Studio, a worker, a model) · 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from clapboard.cli import (
    calibrate,
    caption,
    compact,
    config,
    convert,
    data,
    departure,
    evaluate,
    export_events,
    import_events,
    jobs,
    labels,
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
from clapboard.cli.ending import run_to_the_end

app = typer.Typer(
    name="clapboard",
    help="Pre-labels audio in Label Studio with CLAP; people approve or correct.",
    epilog="Exit codes: 0 done, 1 some of it failed, 2 wrong usage or settings, 3 something needed isn't there, "
    "130 stopped by Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (
    run,
    project,
    departure,
    train,
    models,
    labels,
    ledger,
    sync,
    caption,
    data,
    export_events,
    import_events,
    pretrain,
    evaluate,
    tables,
    predict,
    search,
    convert,
    calibrate,
    jobs,
    compact,
    config,
):
    module.add_commands(app)


def main() -> None:
    """Run the command line and exit. Any error is one sentence and an exit code."""
    sys.exit(run_to_the_end(lambda: app(standalone_mode=False, prog_name="clapboard"), as_json="--json" in sys.argv))
