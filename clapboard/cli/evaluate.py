"""`evaluate zero-shot` and `few-shot`: the accuracy of suggestions on labelled clips; `evaluate events` beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from clapboard.cli.evaluate_events import events
from clapboard.cli.fast_imports import fast_imports
from clapboard.cli.output import AsJson, Model, console, errors_console, progress_bar, settings_with, write_json
from clapboard.errors import SettingsError
from clapboard.plurals import counted

if TYPE_CHECKING:
    from clapboard.model.clap import ClapEncoder
    from training.evaluate import Report
    from training.evaluation.fewshot import Point
    from training.evaluation.listed_clips import EmbeddedClips, ListedClip, Unreadable

Manifest = Annotated[Path, typer.Option(help="CSV with the columns path, label, group and, optionally, fold.")]
Prompts = Annotated[
    Literal["template", "captions"],
    typer.Option(help="Turn a label into text by one template, or by an ensemble of captions."),
]

commands = typer.Typer(help="Measure the quality of suggestions on labelled clips.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    commands.command("events")(events)
    app.add_typer(commands, name="evaluate")


@commands.command("zero-shot")
def zero_shot(
    manifest: Manifest,
    model: Model = None,
    prompts: Prompts = "template",
    as_json: AsJson = False,
) -> None:
    """Measure zero-shot suggestions on labelled clips. Exit code 1 if a file can't be decoded."""
    with fast_imports():
        from clapboard.labels.captions import ensemble
        from clapboard.labels.prompts import prompts_for
        from clapboard.model.load import load_encoder
        from clapboard.suggest.prediction import model_version
        from training.evaluation.fewshot import zero_shot_report
        from training.evaluation.listed_clips import read_clips

    listed = read_clips(manifest)
    encoder = load_encoder(settings_with(model=model, writes_for_others=True))
    clips, unreadable = _embedded(encoder, listed, ensemble if prompts == "captions" else prompts_for)
    report = zero_shot_report(clips)
    version = model_version(encoder.identity, clips.label_space)
    if as_json:
        write_json({"model_version": version} | report.to_json() | {"unreadable": named(unreadable)})
    else:
        _show_report(version, report)
    finish(unreadable)


@commands.command("few-shot")
def few_shot(
    manifest: Manifest,
    model: Model = None,
    shots: Annotated[str, typer.Option(help="Numbers of labels per class, comma-separated.")] = "0,1,2,4,8,16",
    seeds: Annotated[int, typer.Option(help="Number of random draws of the labelled clips.", min=1)] = 10,
    finetune_seeds: Annotated[int, typer.Option(help="Number of draws to finetune on too.", min=0)] = 3,
    test_fold: Annotated[str | None, typer.Option(help="Fold to test on; by default the last one.")] = None,
    curve: Annotated[Path | None, typer.Option(help="Write a chart of the means to this SVG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy by number of labels per class and by method. Exit code 1 if a file can't be decoded.

    Without folds, each seed tests on half of the groups and draws labels from the other half.
    """
    with fast_imports():
        from clapboard.labels.prompts import prompts_for
        from clapboard.model.load import load_encoder
        from training.evaluation import fewshot
        from training.evaluation.contenders import DrawFinetuner
        from training.evaluation.listed_clips import read_clips

    shot_numbers = numbers(shots)
    settings = settings_with(model=model, writes_for_others=True)
    if curve is not None:
        check_writable(curve)
    listed = read_clips(manifest)
    fold = fewshot.choose_test_fold(listed, test_fold)
    plan = fewshot.Plan(shot_numbers, seeds, finetune_seeds, fold, settings.test_share)
    clips, unreadable = _embedded(load_encoder(settings), listed, prompts_for)
    with progress_bar() as bar:
        draws = bar.add_task("draws", total=seeds * len(plan.shots))
        points = fewshot.few_shot(clips, plan, DrawFinetuner(settings), on_draw=lambda: bar.advance(draws))
    if curve is not None:
        curve.write_text(_curve(points, plan.shots), "utf-8")
    if as_json:
        about = {"model": settings.model, "num_clips": len(clips.clips), "labels": clips.values, "test_fold": fold}
        counts = {"seeds": seeds, "finetune_seeds": finetune_seeds}
        rows = [asdict(point) for point in points]
        write_json(about | counts | {"points": rows, "unreadable": named(unreadable)})
    else:
        _show_points(points)
    finish(unreadable)


def check_writable(file: Path) -> None:
    """Raises `SettingsError` if the file can't be written, before hours of work are lost."""
    try:
        file.open("a").close()
    except OSError as error:
        raise SettingsError(f"File {file} can't be written ({error.strerror}): name another file.") from None


def _curve(points: Sequence[Point], shots: Sequence[int]) -> str:
    """An SVG chart: a line per method, over the numbers of labels at equal distances."""
    from training.evaluation.chart import line_chart

    place = {number: float(index) for index, number in enumerate(shots)}
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if point.mean is not None:
            lines.setdefault(point.method, []).append((place[point.shots], point.mean))
    return line_chart(lines, {place[number]: str(number) for number in shots}, "labels a class, and accuracy")


def numbers(shots: str) -> tuple[int, ...]:
    """The numbers of a comma-separated option, in order. Raises `SettingsError` if they aren't numbers of labels."""
    try:
        values = sorted({int(part) for part in shots.split(",")})
    except ValueError:
        values = [-1]
    if values[0] < 0:
        raise SettingsError(f"Shots “{shots}” are not numbers of labels: write them as 0,1,2,4.")
    return tuple(values)


def _embedded(
    encoder: ClapEncoder, listed: Sequence[ListedClip], prompts_of: Callable[[str], tuple[str, ...]]
) -> tuple[EmbeddedClips, list[Unreadable]]:
    from clapboard.labels.label_space import label_space_of
    from training.evaluation.listed_clips import embed_clips

    label_space = label_space_of(sorted({clip.label for clip in listed}), prompts_of)
    with progress_bar() as bar:
        embedded = bar.add_task("embed", total=len(listed))
        return embed_clips(encoder, label_space, listed, on_clip=lambda: bar.advance(embedded))


def named(unreadable: Sequence[Unreadable]) -> list[dict[str, str]]:
    """The files that were left out, as JSON tells them."""
    return [{"path": str(clip.path), "error": clip.reason} for clip in unreadable]


def finish(unreadable: Sequence[Unreadable]) -> None:
    """Name the files that were left out and exit with code 1, if there are any."""
    if not unreadable:
        return
    out = errors_console()
    for clip in unreadable:
        out.print(f"[red]{escape(str(clip.path))}[/]: {escape(clip.reason)}", highlight=False)
    left_out = "1 clip was" if len(unreadable) == 1 else f"{len(unreadable)} clips were"
    out.print(f"{left_out} left out.", highlight=False)
    raise typer.Exit(1)


def _show_report(version: str, report: Report) -> None:
    out = console()
    by_label = Table("label", "clips", "recall", "precision", title=escape(version))
    for label, clips, recall, precision in zip(
        report.labels, report.support, report.recall, report.precision, strict=True
    ):
        by_label.add_row(escape(label), str(clips), f"{recall:.2f}", f"{precision:.2f}")
    out.print(by_label)
    confusion = Table("", "is \\ called", *map(str, range(1, len(report.labels) + 1)), title="Confusion")
    for number, (label, row) in enumerate(zip(report.labels, report.confusion, strict=True), start=1):
        confusion.add_row(str(number), escape(label), *(str(clips) if clips else "" for clips in row))
    out.print(confusion)
    out.print(
        f"{counted(report.num_clips, 'clip')}: accuracy {report.accuracy:.3f}, macro F1 {report.macro_f1:.3f}, "
        f"calibration error {report.calibration_error:.3f}.",
        highlight=False,
    )


def _show_points(points: Sequence[Point]) -> None:
    table = Table("labels", "method", "mean", "worst", "lead", "worst", "seeds", title="Labels a class, and accuracy")
    table.caption = "lead: over zero-shot, on the same draws"
    answers = [point for point in points if point.num_seeds]
    for point, following in zip_longest(answers, answers[1:]):
        figures = (
            f"{point.mean:.3f}",
            f"{point.worst:.3f}",
            f"{point.difference:+.3f}",
            f"{point.worst_difference:+.3f}",
        )
        is_last = following is None or following.shots != point.shots
        table.add_row(str(point.shots), point.method, *figures, str(point.num_seeds), end_section=is_last)
    console().print(table)
