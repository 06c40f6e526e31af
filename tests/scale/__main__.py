"""`make scale`: what has to stay fast and small when everything has grown, with goals. Exit code 1 on a miss."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tests.bench.hardware import describe_hardware
from tests.scale import accept, accept_cost, hot_queries
from tests.scale.cases import Measured, Size

CASES = (hot_queries.CASE, accept_cost.CASE, accept.CASE)


def main(
    only: Annotated[str, typer.Option(help="Only cases whose name holds this text.")] = "",
    tasks: Annotated[int, typer.Option(min=1000, help="How many tasks a project has.")] = 100_000,
    jobs: Annotated[int, typer.Option(min=1000, help="How many jobs there have been.")] = 1_000_000,
) -> None:
    """Measure the cases at this size, each figure beside its goal."""
    cases = [case for case in CASES if only in case.name]
    if not cases:
        raise typer.BadParameter(f"no case's name holds {only!r}", param_hint="--only")
    typer.echo(describe_hardware())
    typer.echo(f"{jobs:,} jobs, {tasks:,} tasks")
    figures = []
    for case in cases:
        typer.echo(f"\n{case.name}")
        for figure in case.measure(Size(num_tasks=tasks, num_jobs=jobs)):
            _show(figure)
            figures.append(figure)
    if missed := [figure.name for figure in figures if not figure.is_met]:
        typer.echo(f"\nmissed: {'; '.join(missed)}")
        sys.exit(1)


def _show(figure: Measured) -> None:
    verdict = "" if figure.is_met else "  MISSED"
    typer.echo(f"  {figure.name:<44} {figure.value:10.2f} {figure.unit:<3} (goal {figure.goal:g}){verdict}")


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
