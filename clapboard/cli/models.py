"""`models`: the model versions of a project."""

from __future__ import annotations

from collections.abc import Sequence
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
    from clapboard.store.trials import Trial
    from clapboard.store.versions import Version

VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="A model version, or its first characters.")]

models = typer.Typer(help="List, judge, promote and roll back a project's model versions.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.add_typer(models, name="models")
    models.command("list")(list_versions)
    models.command()(show)
    models.command()(compare)
    models.command()(promote)
    models.command()(rollback)
    models.command()(unpin)


def list_versions(project: ProjectId, as_json: AsJson = False) -> None:
    """List the project's model versions, oldest first: their state, their figures, and which one serves."""
    from clapboard.project.serving import serving_version

    settings, store = _open(None)
    store.catalog.project(project)
    store.ledger.catch_up()
    pinned = store.versions.pinned(project)
    serving = serving_version(store, settings.model, project)
    rows = [
        _row(settings, store, version, serving) | {"pinned": version.model_version == pinned}
        for version in _with_serving(store, project, serving)
    ]
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
        notes = ("serves" if row["serves"] and row["state"] != "serving" else "", "pinned" if row["pinned"] else "")
        state = ", ".join(filter(None, (row["state"], *notes)))
        table.add_row(row["model_version"], row["kind"], state, str(row["num_labels"] or ""), *figures)
    console().print(table)
    if serving is None:
        console().print(
            f"Which version serves isn't known until a worker has loaded {settings.model} (CLAPBOARD_MODEL).",
            highlight=False,
            markup=False,
        )
    elif serving.head == "zero-shot":
        console().print("Zero-shot serves: suggestions come from the labels' texts only.")
    if pinned:
        console().print(
            f"{pinned} is pinned: nothing replaces it until somebody adds a label, or you run "
            f"`clapboard models unpin --project {project}`.",
            highlight=False,
            markup=False,
        )


def show(project: ProjectId, version: VersionName, as_json: AsJson = False) -> None:
    """Show a version: what it was made from, its figures, and the gate's verdict."""
    from clapboard.project.serving import serving_version

    settings, store = _open(None)
    serving = serving_version(store, settings.model, project)
    chosen = find_version(_with_serving(store, project, serving), project, version)
    row = _row(settings, store, chosen, serving)
    trials = _trials(store, chosen, serves=row["serves"])
    if as_json:
        write_json(row | {"manifest": dict(chosen.manifest), "trials": trials})
        return
    for name in ("model_version", "kind", "state", "serves", "num_labels"):
        value = {True: "yes", False: "no", None: "–"}.get(row[name], row[name])
        console().print(f"{name:14} {value}", highlight=False, markup=False)
    for trial in trials:
        console().print(f"{'trial':14} {trial['sentence']}", highlight=False, markup=False)
    verdict = chosen.manifest.get("verdict")
    if not verdict:
        return
    console().print(f"{'verdict':14} {verdict['reason']}", highlight=False, markup=False)
    if verdict.get("explanation"):
        console().print(f"{'how':14} {verdict['explanation']}", highlight=False, markup=False)
    for reports in verdict["reports"]:
        console().print(_per_class(reports))


def compare(project: ProjectId, first: VersionName, second: VersionName, as_json: AsJson = False) -> None:
    """Show the figures of two judged versions side by side, each on the test split of its day."""
    _, store = _open(None)
    pair = [find_version(store.versions.of_project(project), project, name) for name in (first, second)]
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
    """Put a version into service, whatever the gate's verdict. It takes over once all tasks are predicted with it.

    It is pinned: nothing replaces it until somebody adds a label, or you run `clapboard models unpin`.
    """
    from clapboard.queue.celery_app import LEARN

    settings, store = _open(model)
    chosen = find_version(store.versions.of_project(project), project, version)
    store.versions.pin(project, chosen.model_version)
    run_job(settings, store, LEARN, "promote", project, chosen.model_version, wait=wait, as_json=as_json)


def rollback(project: ProjectId, model: Model = None, wait: Wait = True, as_json: AsJson = False) -> None:
    """Put the previous encoder back into service or, if there is none, the base model's zero-shot.

    It is pinned: nothing replaces it until somebody adds a label, or you run `clapboard models unpin`.
    """
    from clapboard.project.serving import zero_shot_version
    from clapboard.queue.celery_app import LEARN

    settings, store = _open(model)
    store.catalog.project(project)
    current = store.versions.promoted(project)
    if current is None:
        raise NotFoundError(f"Project {project} has nothing to roll back: the base model's zero-shot serves.")
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
    store.versions.pin(project, target.model_version)
    run_job(settings, store, LEARN, "promote", project, target.model_version, wait=wait, as_json=as_json)


def unpin(project: ProjectId, as_json: AsJson = False) -> None:
    """Let the project learn from its annotations again, and replace the version that was pinned."""
    from clapboard.queue.celery_app import LEARN, CeleryWaker, make_celery
    from clapboard.store.jobs import JobRequest

    settings, store = _open(None)
    store.catalog.project(project)
    store.ledger.catch_up()
    pinned = store.versions.pinned(project)
    store.versions.unpin(project)
    if pinned:
        store.jobs.add(LEARN, [JobRequest("learn", project, delay_s=0.0)])
        CeleryWaker(make_celery(settings)).wake(LEARN)
    if as_json:
        write_json({"project": project, "unpinned": pinned or None})
        return
    outcome = f"{pinned} may be replaced again" if pinned else "nothing was pinned"
    console().print(f"Project {project}: {outcome}.", highlight=False, markup=False)


def _open(model: str | None) -> tuple[Settings, Store]:
    from clapboard.store import Store

    settings = settings_with(model=model)
    return settings, Store.open(settings)


def _with_serving(store: Store, project: int, serving: Version | None) -> list[Version]:
    """The stored versions, and the serving one if it isn't stored."""
    stored = list(store.versions.of_project(project))
    if serving is None or any(version.model_version == serving.model_version for version in stored):
        return stored
    return [*stored, serving]


def find_version(versions: Sequence[Version], project: int, name: str) -> Version:
    """The version of this name, or the only one whose name begins with it. Raises `NotFoundError` otherwise."""
    matches = [version for version in versions if version.model_version.startswith(name)]
    exact = [version for version in matches if version.model_version == name]
    if len(exact or matches) != 1:
        fault = "has several versions that begin with" if matches else "has no version"
        raise NotFoundError(
            f"Project {project} {fault} {name}: `clapboard models list --project {project}` shows them."
        )
    return (exact or matches)[0]


def _row(settings: Settings, store: Store, version: Version, serving: Version | None) -> dict[str, Any]:
    verdict = version.manifest.get("verdict") or {}
    reports = verdict.get("reports") or [{}]
    figures = {
        name: reports[0].get(side, {}).get("accuracy")
        for name, side in (("accuracy", "candidate"), ("in_service", "in_service"), ("zero_shot", "zero_shot"))
    }
    serves = serving is not None and serving.model_version == version.model_version
    is_stored = version.created_at > 0
    return {
        "model_version": version.model_version,
        "kind": version.manifest.get("kind", ""),
        "state": _state(settings, store.versions.promoted(version.project), version) if is_stored else "serving",
        "serves": serves,
        "created_at": version.created_at if is_stored else None,
        "promoted_at": version.promoted_at,
        "num_labels": version.manifest.get("num_labels") or version.manifest.get("clips", {}).get("learnt"),
        "reason": verdict.get("reason"),
        **figures,
    }


def _trials(store: Store, version: Version, *, serves: bool) -> list[dict[str, Any]]:
    """How the version's trials stand, and the open one of heads if the version serves."""
    name = version.model_version
    rows = []
    for trial in store.trials.of_project(version.project):
        if name not in (trial.candidate, trial.reference) and not (serves and trial.state == "open"):
            continue
        answers = store.trials.answers(trial)
        lead = sum(answer.lead for answer in answers) / len(answers) if answers else None
        rows.append(
            {
                "kind": trial.kind,
                "state": trial.state,
                "candidate": trial.candidate,
                "reference": trial.reference,
                "num_labels": len(answers),
                "of_labels": trial.num_labels,
                "lead": lead,
                "reason": trial.reason or None,
                "sentence": _trial_sentence(trial, len(answers), lead),
            }
        )
    return rows


def _trial_sentence(trial: Trial, num_labels: int, lead: float | None) -> str:
    if trial.state != "open":
        return f"{trial.kind}, {trial.state}: {trial.reason}"
    nearer = "" if lead is None else f", nearer to them by {lead:+.3f} each"
    since = " and the heads since" if trial.kind == "head" else ""
    return (
        f"{trial.kind}, open: {trial.candidate}{since} against {trial.reference}, "
        f"{num_labels} of {trial.num_labels} labels{nearer}"
    )


def _state(settings: Settings, promoted: Version | None, version: Version) -> str:
    from clapboard.project.serving import has_checkpoint, is_tuned

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
    """Recall per class, and the figures, of the candidate and of what it was compared with."""
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
