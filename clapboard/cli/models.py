"""`models`: the model versions of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from clapboard.cli.output import AsJson, Model, ProjectId, console, settings_with, write_json
from clapboard.cli.waiting import Wait, run_job
from clapboard.errors import ClapboardError, NotFoundError

if TYPE_CHECKING:
    from clapboard.settings import Settings
    from clapboard.store import Store
    from clapboard.store.versions import Version

VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="A model version, or how it begins.")]

models = typer.Typer(
    help="The model versions of a project: what each was judged, and which one serves.", no_args_is_help=True
)


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.add_typer(models, name="models")
    models.command("list")(list_versions)
    models.command()(show)
    models.command()(compare)
    models.command()(promote)
    models.command()(rollback)


def list_versions(project: ProjectId, as_json: AsJson = False) -> None:
    """Every model version that is kept, oldest first, and what became of it."""
    settings, store = _open(None)
    store.catalog.project(project)
    rows = [_row(settings, store, version) for version in store.versions.of_project(project)]
    if as_json:
        write_json(rows)
        return
    table = Table(
        Column("version", overflow="fold"),
        "kind",
        "state",
        "labels",
        "accuracy",
        "in service",
        "zero-shot",
        title=f"Project {project}",
    )
    for row in rows:
        figures = (_figure(row[name]) for name in ("accuracy", "in_service", "zero_shot"))
        table.add_row(row["model_version"], row["kind"], row["state"], str(row["num_labels"] or ""), *figures)
    console().print(table)
    if not rows:
        console().print("Nothing was learnt yet: the base model's zero-shot serves.")


def show(project: ProjectId, version: VersionName, as_json: AsJson = False) -> None:
    """All that is kept of a version: what it was made from, how it was judged, and why."""
    settings, store = _open(None)
    found = _find(store, project, version)
    row = _row(settings, store, found)
    if as_json:
        write_json(row | {"manifest": dict(found.manifest)})
        return
    for name in ("model_version", "kind", "state", "num_labels"):
        console().print(f"{name:14} {row[name]}", highlight=False, markup=False)
    verdict = found.manifest.get("verdict")
    if not verdict:
        return
    console().print(f"{'verdict':14} {verdict['reason']}", highlight=False, markup=False)
    for reports in verdict["reports"]:
        console().print(_per_class(reports))


def compare(project: ProjectId, first: VersionName, second: VersionName, as_json: AsJson = False) -> None:
    """Two judged versions side by side, on the test split of each one's day."""
    _, store = _open(None)
    pair = [_find(store, project, name) for name in (first, second)]
    reports = [_candidate_reports(version) for version in pair]
    rows = [
        {
            "control": control,
            "figure": figure,
            **{side: by_control.get(control, {}).get(figure) for side, by_control in zip("ab", reports, strict=True)},
        }
        for control in sorted({*reports[0], *reports[1]})
        for figure in ("num_clips", "accuracy", "macro_f1", "mean_average_precision", "calibration_error")
    ]
    if as_json:
        write_json({"a": pair[0].model_version, "b": pair[1].model_version, "figures": rows})
        return
    table = Table("control", "figure", pair[0].model_version, pair[1].model_version)
    for row in rows:
        table.add_row(row["control"], row["figure"], _figure(row["a"]), _figure(row["b"]))
    console().print(table)


def promote(
    project: ProjectId, version: VersionName, model: Model = None, wait: Wait = True, as_json: AsJson = False
) -> None:
    """Bring a version into service, whatever the gate said: the pool is predicted anew, then it takes over at once."""
    from clapboard.jobs import LEARN

    settings, store = _open(model)
    found = _find(store, project, version)
    run_job(settings, store, LEARN, "promote", project, found.model_version, wait=wait, as_json=as_json)


def rollback(project: ProjectId, model: Model = None, wait: Wait = True, as_json: AsJson = False) -> None:
    """Go back to the encoder that served before this one; without one, to the base model's zero-shot."""
    from clapboard.jobs import LEARN
    from clapboard.serving import zero_shot_version

    settings, store = _open(model)
    current = store.versions.promoted(project)
    if current is None:
        raise NotFoundError(f"Project {project} has nothing to go back from: the base model's zero-shot serves.")
    earlier = [
        version
        for version in store.versions.of_project(project)
        if version.promoted_at is not None
        and version.encoder_version != current.encoder_version
        and _state(settings, current, version) != "removed"
    ]
    if earlier:
        target = max(earlier, key=lambda version: version.promoted_at or 0.0)
    else:
        target = zero_shot_version(store, settings.model, project)
        store.versions.put(target)
    run_job(settings, store, LEARN, "promote", project, target.model_version, wait=wait, as_json=as_json)


def _open(model: str | None) -> tuple[Settings, Store]:
    from clapboard.store import Store

    settings = settings_with(model=model)
    return settings, Store.open(settings)


def _find(store: Store, project: int, name: str) -> Version:
    """The one version whose name is, or begins with, this. Raises `NotFoundError` if there are none or several."""
    found = [version for version in store.versions.of_project(project) if version.model_version.startswith(name)]
    exact = [version for version in found if version.model_version == name]
    if len(exact or found) != 1:
        what = "has several versions that begin with" if found else "has no version"
        raise NotFoundError(f"Project {project} {what} {name}: `clapboard models list --project {project}` shows them.")
    return (exact or found)[0]


def _row(settings: Settings, store: Store, version: Version) -> dict[str, Any]:
    verdict = version.manifest.get("verdict") or {}
    reports = verdict.get("reports") or [{}]
    figures = {
        name: reports[0].get(side, {}).get("accuracy")
        for name, side in (("accuracy", "candidate"), ("in_service", "in_service"), ("zero_shot", "zero_shot"))
    }
    return {
        "model_version": version.model_version,
        "kind": version.manifest.get("kind", ""),
        "state": _state(settings, store.versions.promoted(version.project), version),
        "created_at": version.created_at,
        "promoted_at": version.promoted_at,
        "num_labels": version.manifest.get("num_labels") or version.manifest.get("clips", {}).get("learnt"),
        "reason": verdict.get("reason"),
        **figures,
    }


def _state(settings: Settings, promoted: Version | None, version: Version) -> str:
    from clapboard.serving import has_checkpoint, is_tuned

    if promoted is not None and promoted.model_version == version.model_version:
        return "promoted"
    if is_tuned(version.encoder) and not has_checkpoint(settings, version.encoder):
        return "removed"
    if version.promoted_at is not None:
        return "earlier"
    refused = (version.manifest.get("verdict") or {}).get("promote") is False
    return "refused" if refused else "candidate"


def _candidate_reports(version: Version) -> dict[str, Any]:
    verdict = version.manifest.get("verdict")
    if not verdict:
        raise ClapboardError(f"Version {version.model_version} was never judged: only finetuned ones are.")
    return {reports["control"]: reports["candidate"] for reports in verdict["reports"]}


def _per_class(reports: dict[str, Any]) -> Table:
    """Recall by class of the candidate and of what it was judged against."""
    sides = ("candidate", "in_service", "zero_shot")
    table = Table(reports["control"], "clips", *(side.replace("_", " ") for side in sides))
    for index, label in enumerate(reports["candidate"]["labels"]):
        recalls = (_figure(reports[side]["recall"][index]) for side in sides)
        table.add_row(escape(label), str(reports["candidate"]["support"][index]), *recalls)
    for figure in ("accuracy", "macro_f1", "mean_average_precision", "calibration_error"):
        table.add_row(f"[bold]{figure}[/]", "", *(_figure(reports[side][figure]) for side in sides))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
