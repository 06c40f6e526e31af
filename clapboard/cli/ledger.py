"""`ledger`: how often suggestions were accepted."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.output import AsJson, ProjectId, console, settings_with, write_json
from clapboard.plurals import counted, plural

if TYPE_CHECKING:
    from clapboard.feedback.acceptance import Fate, LeadTime, RegionFate
    from clapboard.project.ledger_report import LedgerReport
    from clapboard.store import Store


class By(enum.StrEnum):
    """What the rows of the models' table are."""

    KIND = "kind"
    VERSION = "version"


_OUTCOMES = ("accepted", "corrected", "added", "skipped", "bulk")


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(ledger)


def ledger(
    project: ProjectId,
    by: Annotated[By, typer.Option(help="Group by kind of model and day, or by model version.")] = By.KIND,
    replay: Annotated[
        bool, typer.Option("--replay", help="Rebuild the ledger from all events and compare, labels too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how often suggestions were accepted, and which annotations aren't learnt from.

    Exit code 1 if a replay differs.
    """
    from clapboard.project.ledger_report import ledger_report
    from clapboard.store import Store

    store = Store.open(settings_with())
    if replay:
        store.ledger.catch_up()
        _replay(store, as_json)
        return
    report = ledger_report(store, project)
    if as_json:
        write_json(asdict(report))
    else:
        _show(report, by)


def _replay(store: Store, as_json: bool) -> None:
    from clapboard.project.agreement import verify_derived

    replayed, rebuilt = store.ledger.replay(store.inbox), verify_derived(store)
    if as_json:
        counts = {"events": replayed.num_events, "entries": replayed.num_entries}
        differing = {"differing": replayed.differing, "rebuilt": [asdict(project) for project in rebuilt]}
        write_json({"agrees": replayed.agrees and not rebuilt} | counts | differing)
    elif replayed.agrees:
        console().print(
            f"The ledger agrees with the inbox: {counted(replayed.num_events, 'event')}, "
            f"{counted(replayed.num_entries, 'entry')}."
        )
    else:
        events = ", ".join(map(str, replayed.differing[:20]))
        console().print(
            f"The ledger differs from the inbox in {len(replayed.differing)} of "
            f"{counted(replayed.num_events, 'event')}: {events}."
        )
    for project in () if as_json else rebuilt:
        console().print(
            f"The labels kept of project {project.project} differed from the ledger in "
            f"{counted(len(project.tasks), 'task')} and {counted(project.num_counts, 'count')}; they are derived anew."
        )
    if rebuilt or not replayed.agrees:
        raise typer.Exit(1)


def _show(report: LedgerReport, by: By) -> None:
    out = console()
    if not report.num_annotations:
        out.print(f"Nobody has annotated anything in project {report.project} yet.")
        return
    classes = Table("control", "label", "suggested", "accepted", "acceptance", "added", title="By class")
    for fate in report.by_class:
        counts = (str(fate.suggested), str(fate.accepted), _percent(fate.acceptance), str(fate.added))
        classes.add_row(escape(fate.control), escape(fate.label), *counts)
    out.print(classes)
    if report.by_region_label:
        out.print(_regions(report.by_region_label))
    if by is By.VERSION:
        versions = {key or "none": fate for key, fate in report.by_version.items()}
        out.print(_fates("By model version", "version", versions))
    else:
        out.print(_fates("By kind of model", "kind", report.by_kind))
        out.print(_fates("By day (UTC)", "day", report.by_day))
    people = {report.annotators[key]: fate for key, fate in report.by_annotator.items()}
    out.print(_fates("By annotator", "annotator", people | {"all": report.overall}))
    out.print(
        f"{counted(report.num_annotations, 'annotation')}. Median lead time: "
        f"accepted {_seconds(report.accepted_lead_time)}, corrected {_seconds(report.corrected_lead_time)}, "
        f"unaided {_seconds(report.unaided_lead_time)}."
    )
    for line in _left_out(report):
        out.print(line, highlight=False, markup=False)


def _regions(fates: Sequence[RegionFate]) -> Table:
    """What became of suggested regions; shifts are those of the edges of regions that kept their label."""
    counts = ("accepted", "moved", "relabelled", "deleted", "added")
    table = Table("control", "label", "suggested", *counts, "start moved", "end moved", "IoU", title="Regions, medians")
    for fate in fates:
        numbers = (str(getattr(fate, name)) for name in ("suggested", *counts))
        shifts = ("–" if shift is None else f"{shift:.2f} s" for shift in (fate.start_shift_s, fate.end_shift_s))
        iou = "–" if fate.iou is None else f"{fate.iou:.2f}"
        table.add_row(escape(fate.control), escape(fate.label), *numbers, *shifts, iou)
    return table


def _left_out(report: LedgerReport) -> Iterator[str]:
    """Sentences on the tasks that aren't learnt from, and what to do about them."""
    left_out = report.left_out
    for tie in left_out.ties:
        yield (
            f"Not learnt for lack of a majority for “{tie.control}”: {_tasks(tie.tasks)}. Have "
            "one person more label them, or mark the right annotation as ground truth."
        )
    for several in left_out.several:
        yield f"Not learnt, because somebody chose several labels of “{several.control}”: {_tasks(several.tasks)}."
    for extent in left_out.extents:
        yield (
            f"Not learnt: a region of “{extent.control}” has no length or lies outside the recording: "
            f"{_tasks(extent.tasks)}. The rest of each counts."
        )
    for unknown in left_out.unknown:
        yield (
            f"Not learnt, because the label config has no “{unknown.label}” in “{unknown.control}”: "
            f"{_tasks(unknown.tasks)}. If it was renamed: clapboard labels rename --project {report.project} "
            f"{shlex.quote(unknown.label)} NEW"
        )


def _tasks(tasks: Sequence[int]) -> str:
    return f"{plural(len(tasks), 'task')} {', '.join(map(str, tasks))}"


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
