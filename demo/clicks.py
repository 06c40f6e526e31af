"""Measures how many clicks suggestions save: `python -m demo.clicks`.

A simulated annotator works through 300 recordings of a pump in a real Label Studio, in its order. Each suggestion that
he accepts as it is saves a click; held-out clips, which have no suggestion, save none. Prints a table, and draws the
curve to docs/clicks.svg.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from clapboard.label_studio.client import LabelStudioClient
from clapboard.settings import Settings
from clapboard.store import Store
from demo.clapboard_up import ClapboardUp
from demo.clips import label_config, make_pump_clips
from demo.label_studio_server import LabelStudioServer
from demo.learning import Annotator, LearningProject
from training.evaluation.chart import line_chart

PICTURE = Path(__file__).parent.parent / "docs" / "clicks.svg"
_STEP = 20


def main(
    num_tasks: Annotated[int, typer.Option("--tasks", min=2 * _STEP)] = 300,
    seconds_per_clip: Annotated[
        float, typer.Option(min=0, help="Seconds that the annotator takes for each clip.")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Annotate a whole project, and show how many clicks suggestions saved on the way."""
    folder = Path(tempfile.mkdtemp(prefix="clapboard-clicks-"))
    try:
        clips = make_pump_clips(folder / "clips", num_tasks)
        with LabelStudioServer(folder / "label-studio") as server, ClapboardUp(server, folder / "clapboard") as up:
            client = LabelStudioClient(Settings(LABEL_STUDIO_URL=server.url, LABEL_STUDIO_API_KEY=server.token))
            project_id = client.create_project("Clicks", label_config(sorted({clip.label for clip in clips}))).id
            tasks = client.import_files(project_id, [clip.path for clip in clips])
            for command in ("connect", "prelabel"):
                up.run(command, "--project", str(project_id))
            truth = {task: clip.label for task, clip in zip(tasks, clips, strict=True)}
            with (
                closing(Store.open(up.settings)) as store,
                LearningProject(server, store, project_id, truth) as project,
            ):
                saved = _annotate(project, seconds_per_clip)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    points = [
        {
            "labels": end,
            "saved_of_last": sum(saved[end - _STEP : end]) / _STEP,
            "saved_of_all": sum(saved[:end]) / end,
        }
        for end in range(_STEP, len(saved) + 1, _STEP)
    ]
    if as_json:
        print(json.dumps(points))  # noqa: T201  # what the option asks for
    else:
        _show(points)
    PICTURE.write_text(picture(points), "utf-8")


def _annotate(project: LearningProject, seconds_per_clip: float) -> list[bool]:
    """Whether each task's suggestion was accepted as it was, in the order of annotation."""
    annotator = Annotator(project.api, project.project, project.truth)
    saved = []
    num_judged = 0
    for _ in annotator.annotate(len(project.truth)):
        judged = annotator.judged[num_judged:]
        num_judged += len(judged)
        saved.append(judged == [True])
        time.sleep(seconds_per_clip)
    return saved


def _show(points: list[dict[str, float]]) -> None:
    table = Table("labels given", f"saved of the last {_STEP}", "saved of all", "", title="Clicks saved")
    for point in points:
        bar = "█" * round(40 * point["saved_of_last"])
        table.add_row(f"{point['labels']:.0f}", f"{point['saved_of_last']:.0%}", f"{point['saved_of_all']:.0%}", bar)
    Console().print(table)


def picture(points: list[dict[str, float]]) -> str:
    """The curve as SVG."""
    lines = {
        name: [(point["labels"], point[share]) for point in points]
        for name, share in ((f"of the last {_STEP} clips", "saved_of_last"), ("of all", "saved_of_all"))
    }
    ticks = {float(labels): str(labels) for labels in range(0, int(points[-1]["labels"]) + 1, 50)}
    return line_chart(lines, ticks, "labels given, and clicks saved")


if __name__ == "__main__":
    typer.run(main)
