"""The table that a run prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.bench.rows import Row, quantity


def show(rows: Sequence[Row], console: Console) -> None:
    """Print every row: figures, ratio and goal, or why it has none."""
    table = Table("what", "ours", "beside", "peer", "ratio", "goal", "", title=escape(rows[0].hardware))
    for row in rows:
        case = row.case
        goal = case.goal.text(case.unit) if case.goal else ""
        table.add_row(escape(case.name), *_figures(row), goal, _verdict(row), style="dim" if row.skipped else None)
    console.print(table)


def _figures(row: Row) -> tuple[str, str, str, str]:
    """Ours, the peer's name, its figure, the ratio."""
    peer = escape(row.case.peer_name)
    if row.figures is None:
        return escape(row.skipped), peer, "", ""
    unit, theirs = row.case.unit, row.figures.peer
    told = quantity(theirs, unit) if theirs is not None else ""
    return quantity(row.figures.ours, unit), peer, told, "" if row.ratio is None else f"{row.ratio:.2f}×"


def _verdict(row: Row) -> str:
    """Whether the goal is reached; a dash where that wasn't measured."""
    if row.case.goal is None:
        return ""
    return {True: "[green]reached[/]", False: "[red]short[/]", None: "–"}[row.reached]
