"""`labels`: labels and controls that were renamed in the label config."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from clapboard.cli.output import AsJson, ProjectId, console, settings_with, write_json
from clapboard.errors import LabelConfigError, NotFoundError
from clapboard.plurals import counted

if TYPE_CHECKING:
    from clapboard.feedback.entries import Entry
    from clapboard.feedback.renames import Rename
    from clapboard.labels.label_space import Control, LabelSpace
    from clapboard.store import Store

ControlName = Annotated[str | None, typer.Option("--control", help="The control, if several have the label.")]

labels = typer.Typer(help="Keep learning from annotations whose labels were renamed in the label config.")


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.add_typer(labels, name="labels", no_args_is_help=True)
    labels.command("list")(list_labels)
    labels.command()(rename)
    labels.command("rename-control")(rename_control)


def list_labels(project: ProjectId, as_json: AsJson = False) -> None:
    """List annotated labels that are missing in the label config, and the renames so far."""
    from clapboard.project.agreement import left_out

    store, label_space = _open(project)
    unknown = left_out(store, project, label_space).unknown
    renames = store.renames.of_project(project)
    if as_json:
        write_json({"unknown": [asdict(label) for label in unknown], "renames": [asdict(rename) for rename in renames]})
        return
    out = console()
    for label in unknown:
        sentence = (
            f"“{label.label}” of “{label.control}”, given to {counted(len(label.tasks), 'task')}, is not in the label "
            "config."
        )
        out.print(sentence, highlight=False, markup=False)
    for rename in renames:
        out.print(f"{_named(rename)}.", highlight=False, markup=False)
    if not unknown and not renames:
        out.print("All annotated labels are in the label config.")


def rename(
    project: ProjectId,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The label in the annotations.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The label in the label config now.")],
    control: ControlName = None,
    as_json: AsJson = False,
) -> None:
    """Learn annotations of the label OLD as NEW, after you renamed it in the label config."""
    from clapboard.feedback.renames import Rename

    store, label_space = _open(project)
    candidates = [item for item in label_space.controls if new in _values(item) and control in (None, item.name)]
    if not candidates:
        there = "; ".join(f"“{item.name}”: {', '.join(_values(item))}" for item in label_space.controls if item.labels)
        raise NotFoundError(f"The label config has no label “{new}”{_of(control)}: it has {there}.")
    not_renamed = [item.name for item in candidates if old in _values(item)]
    if not_renamed:
        raise LabelConfigError(
            f"“{old}” is still a label of “{not_renamed[0]}”: rename it in Label Studio's label config first."
        )
    annotated = _annotated_controls(store, project, old, [item.name for item in candidates])
    if len(annotated) > 1:
        raise NotFoundError(f"Several controls have such labels, {' and '.join(annotated)}: name one with --control.")
    _keep(store, project, Rename(annotated[0], old, annotated[0], new), as_json)


def rename_control(
    project: ProjectId,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The control's name in the annotations.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The control's name in the label config now.")],
    as_json: AsJson = False,
) -> None:
    """Learn annotations in the control OLD as in NEW, after you renamed it in the label config."""
    from clapboard.feedback.renames import Rename

    store, label_space = _open(project)
    names = [item.name for item in label_space.controls]
    if new not in names:
        raise NotFoundError(f"The label config has no control “{new}”: it has {', '.join(names)}.")
    if old in names:
        raise LabelConfigError(f"“{old}” is still a control: rename it in Label Studio's label config first.")
    if not any(entry.control == old for entry in _standing(store, project)):
        raise NotFoundError(f"Project {project} has no annotations in a control “{old}”.")
    _keep(store, project, Rename(old, "", new, ""), as_json)


def _open(project: int) -> tuple[Store, LabelSpace]:
    """The store, ledger up to date, and the project's label space. Raises `NotFoundError`, `LabelConfigError`."""
    from clapboard.labels.label_config import parse_label_config
    from clapboard.store import Store

    store = Store.open(settings_with())
    store.ledger.catch_up()
    return store, parse_label_config(store.catalog.project(project).label_config)


def _standing(store: Store, project: int) -> Iterator[Entry]:
    return itertools.chain.from_iterable(store.annotations.standing_pages(project))


def _values(control: Control) -> list[str]:
    return [label.value for label in control.labels]


def _annotated_controls(store: Store, project: int, label: str, controls: list[str]) -> list[str]:
    """Those of the controls with annotations of the label. Raises `NotFoundError` if there are none."""
    labels = {(entry.control, value) for entry in _standing(store, project) for value in entry.labels}
    annotated = [name for name in controls if (name, label) in labels]
    if not annotated:
        others = sorted({value for control, value in labels if control in controls})
        known = f"annotated are {', '.join(others)}" if others else "there are no annotations yet"
        raise NotFoundError(f"Project {project} has no annotations of “{label}”: {known}.")
    return annotated


def _keep(store: Store, project: int, rename: Rename, as_json: bool) -> None:
    from clapboard.queue.celery_app import LEARN, CeleryWaker, make_celery
    from clapboard.store.jobs import JobRequest

    store.renames.put(project, rename)
    num_tasks = len({entry.task for entry in _standing(store, project) if _is_about(rename, entry)})
    if store.catalog.project(project).connected:
        store.jobs.add(LEARN, [JobRequest("learn", project)])
        CeleryWaker(make_celery(settings_with())).wake(LEARN)
    if as_json:
        write_json(asdict(rename) | {"project": project, "num_tasks": num_tasks})
    else:
        count = "counts" if num_tasks == 1 else "count"
        sentence = f"{_named(rename)}: {counted(num_tasks, 'task')} of project {project} {count} again."
        console().print(sentence, highlight=False, markup=False)


def _is_about(rename: Rename, entry: object) -> bool:
    labels = getattr(entry, "labels", [])
    return getattr(entry, "control", "") == rename.control and (rename.label in labels or not rename.label)


def _named(rename: Rename) -> str:
    if not rename.label:
        return f"The control “{rename.control}” is “{rename.new_control}” now"
    return f"“{rename.label}” of “{rename.control}” is “{rename.new_label}” now"


def _of(control: str | None) -> str:
    return f" in “{control}”" if control else ""
