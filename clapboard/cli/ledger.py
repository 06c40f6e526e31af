"""`ledger`: what became of the suggestions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, ProjectId, console, settings_with, write_json

if TYPE_CHECKING:
    from clapboard.feedback.acceptance import Acceptance, Fate, LeadTime
    from clapboard.store import Store

_OUTCOMES = ("accepted", "corrected", "added", "skipped", "bulk")


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(ledger)


def ledger(
    project: ProjectId,
    replay: Annotated[bool, typer.Option("--replay", help="Read the whole inbox anew and compare.")] = False,
    as_json: AsJson = False,
) -> None:
    """How often suggestions were accepted, by class, version and annotator. Exit code 1 if a replay disagrees."""
    from clapboard.feedback.acceptance import acceptance
    from clapboard.store import Store

    store = Store.open(settings_with())
    store.ledger.catch_up()
    if replay:
        _replay(store, as_json)
        return
    found = acceptance(store.ledger.standing(project))
    if as_json:
        write_json({"project": project} | asdict(found))
    else:
        _show(project, found)


def _replay(store: Store, as_json: bool) -> None:
    replayed = store.ledger.replay(store.inbox)
    if as_json:
        counts = {"events": replayed.num_events, "entries": replayed.num_entries}
        write_json({"agrees": replayed.agrees} | counts | {"differing": replayed.differing})
    elif replayed.agrees:
        console().print(
            f"The ledger agrees with the inbox: {replayed.num_events} events, {replayed.num_entries} entries."
        )
    else:
        events = ", ".join(map(str, replayed.differing[:20]))
        console().print(
            f"The ledger differs from the inbox in {len(replayed.differing)} of {replayed.num_events} events: {events}."
        )
    if not replayed.agrees:
        raise typer.Exit(1)


def _show(project: int, found: Acceptance) -> None:
    out = console()
    if not found.num_annotations:
        out.print(f"Nobody has annotated anything in project {project} yet.")
        return
    classes = Table("control", "label", "suggested", "accepted", "acceptance", "added", title="By class")
    for fate in found.by_class:
        counts = (str(fate.suggested), str(fate.accepted), _percent(fate.acceptance), str(fate.added))
        classes.add_row(escape(fate.control), escape(fate.label), *counts)
    out.print(classes)
    out.print(_fates("By model version", "version", {key or "none": fate for key, fate in found.by_version.items()}))
    names = {str(key) if key else "unknown": fate for key, fate in found.by_annotator.items()}
    out.print(_fates("By annotator", "user", names | {"all": found.overall}))
    out.print(
        f"{found.num_annotations} annotations. Median lead time: accepted {_seconds(found.accepted_lead_time)}, "
        f"corrected {_seconds(found.corrected_lead_time)}, unaided {_seconds(found.unaided_lead_time)}."
    )


def _fates(title: str, first: str, fates: Mapping[str, Fate]) -> Table:
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for name in ("acceptance", *_OUTCOMES):
        table.add_column(name, justify="right", overflow="fold")
    for name, fate in fates.items():
        counts = (str(getattr(fate, outcome)) for outcome in _OUTCOMES)
        table.add_row(escape(name), _percent(fate.acceptance), *counts)
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _seconds(time: LeadTime) -> str:
    return "–" if time.median_s is None else f"{time.median_s:.1f} s ({time.num_annotations})"
