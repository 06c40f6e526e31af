"""`evaluate events`: how well events are found in time, by number of reviewed recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from clapboard.cli.fast_imports import fast_imports
from clapboard.cli.output import AsJson, Model, console, errors_console, progress_bar, settings_with, write_json

if TYPE_CHECKING:
    from training.evaluation.events.study import Point


def events(
    manifest: Annotated[Path, typer.Option(help="CSV with the columns path and group.")],
    events: Annotated[
        list[Path],
        typer.Option(
            help="True events: CSV with the columns path, start_s, end_s and label, a Raven table, Audacity labels, or "
            "a folder of them; repeat for more."
        ),
    ],
    model: Model = None,
    shots: Annotated[
        str, typer.Option(help="Numbers of reviewed recordings to learn from, comma-separated.")
    ] = "0,1,2,4,8",
    seeds: Annotated[int, typer.Option(help="Number of random draws of the reviewed recordings.", min=1)] = 5,
    curve: Annotated[Path | None, typer.Option(help="Write a chart of the event F1 to this SVG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well events are found in time. Exit code 1 if a file can't be decoded.

    An event is right if it has the right label and an IoU above 0.5 with a true one. Each seed learns from some
    recordings and tests on those of other groups.
    """
    from clapboard.cli.evaluate import check_writable, finish, named, numbers

    with fast_imports():
        from clapboard.labels.label_space import label_space_of
        from clapboard.model.load import load_encoder
        from training.evaluation.events import psds, study
        from training.evaluation.events.methods import zero_shot_heads
        from training.evaluation.events.recordings import embed_recordings, read_recordings

    shot_numbers = numbers(shots)
    settings = settings_with(model=model, writes_for_others=True)
    if curve is not None:
        check_writable(curve)
    listed = read_recordings(manifest, events)
    encoder = load_encoder(settings)
    with progress_bar() as bar:
        embedded = bar.add_task("embed", total=len(listed.recordings))
        recordings, unreadable = embed_recordings(encoder, listed, on_recording=lambda: bar.advance(embedded))
        drawn = bar.add_task("draws", total=seeds * len(shot_numbers))
        zero_shot = zero_shot_heads(encoder, label_space_of(listed.labels, regions=True))
        points = study.measure(zero_shot, recordings, shot_numbers, seeds, on_draw=lambda: bar.advance(drawn))
    if curve is not None:
        curve.write_text(_curve(points, shot_numbers), "utf-8")
    notes = [psds.NOTE if psds.is_available() else psds.MISSING]
    if as_json:
        about = {"model": settings.model, "num_recordings": len(recordings), "labels": listed.labels, "seeds": seeds}
        rows = [asdict(point) for point in points]
        write_json(about | {"points": rows, "notes": notes, "unreadable": named(unreadable)})
    else:
        _show(points)
        errors_console().print(*notes, highlight=False)
    finish(unreadable)


def _curve(points: Sequence[Point], shots: Sequence[int]) -> str:
    """An SVG chart: a line per method, over the numbers of reviewed recordings at equal distances."""
    from training.evaluation.chart import line_chart

    place = {number: float(index) for index, number in enumerate(shots)}
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        lines.setdefault(point.method, []).append((place[point.shots], point.event_f1))
    return line_chart(lines, {place[number]: str(number) for number in shots}, "reviewed recordings, and event F1")


def _show(points: Sequence[Point]) -> None:
    table = Table(
        "reviewed", "method", "event F1", "worst", "segment F1", "collar F1", "PSDS 1", title="Events in time"
    )
    for point in points:
        psds1 = "–" if point.psds1 is None else f"{point.psds1:.3f}"
        figures = (point.event_f1, point.worst, point.segment_f1, point.collar_f1)
        table.add_row(str(point.shots), point.method, *(f"{figure:.3f}" for figure in figures), psds1)
    console().print(table)
