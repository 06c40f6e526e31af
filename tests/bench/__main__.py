"""`make bench`: what Clapboard costs beside named peers, in one run, on this machine: a table, and bench.json.

Whatever is compared is timed in turns on the same input and threads, and medians are compared. Weights are random, of
the real size: speed doesn't depend on their values. A row that can't be measured here says why.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads and torch's fight, to the peers' disadvantage
os.environ.pop("OPENBLAS_CORETYPE", None)  # meant for another processor, these would slow the peers' numpy
os.environ.pop("OPENBLAS_L2_SIZE", None)

import typer
from rich.console import Console
from transformers.utils import logging as transformers_logging

from tests.bench import (
    attacks,
    confined,
    embedding,
    files,
    frames,
    gpu,
    health,
    log_mel,
    memory,
    scale,
    starts,
    training_step,
)
from tests.bench.hardware import describe_hardware
from tests.bench.sections import Effort, chosen, run_section
from tests.bench.table import show
from tests.support.clap_checkpoints import save_real_size, save_tiny

SECTIONS = (
    embedding.SECTION,
    *frames.SECTIONS,
    log_mel.SECTION,
    confined.SECTION,
    files.WORKER_SECTION,
    files.TWO_WORKERS_SECTION,
    scale.CACHED_SECTION,
    scale.FAILED_SECTION,
    health.SECTION,
    attacks.SECTION,
    scale.ACCEPTED_SECTION,
    scale.SEARCH_SECTION,
    memory.SECTION,
    starts.SECTION,
    training_step.SECTION,
    *gpu.SECTIONS,
)
LOG_WIDTH = 180
"""Columns of the table where no terminal says how many there are."""


def main(
    only: Annotated[str, typer.Option(help="Only rows whose name or peer holds this text.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One round with a tiny model: does it still run?")] = False,
    output: Annotated[Path, typer.Option(help="Where the rows are written to, as JSON.")] = Path("bench.json"),
) -> None:
    """Measure, print the table, write the file. Exit code 1 if a section failed."""
    wanted = chosen(SECTIONS, only)
    if not wanted:
        raise typer.BadParameter(f"no row's name or peer holds {only!r}", param_hint="--only")
    transformers_logging.disable_progress_bar()
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    hardware = describe_hardware() + (", in a quick run whose figures mean nothing" if quick else "")
    rows = []
    with tempfile.TemporaryDirectory(prefix="clapboard-bench-") as name:
        folder = Path(name)
        checkpoint = (save_tiny if quick else save_real_size)(folder / "model", fused=False)
        effort = Effort(checkpoint, folder, quick)
        for section, cases in wanted:
            with console.status(f"{cases[0].name} …"):
                rows += run_section(section, cases, effort, hardware)
    show(rows, console)
    output.write_text(json.dumps([row.as_json() for row in rows], indent=2, ensure_ascii=False) + "\n", "utf-8")
    if any(row.failed for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
