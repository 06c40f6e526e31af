"""Ranked windows → places: where in which task, from when to when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from clapboard.audio.windows import WINDOW_S
from clapboard.label_studio.links import task_url
from clapboard.sources.media import LabelStudioMedia
from clapboard.sources.uris import read_uri
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask


@dataclass(frozen=True)
class Place:
    """Neighbouring windows of a task, and the score of the best one, which begins at `best_s`."""

    task: int
    start_s: float
    end_s: float
    best_s: float
    score: float
    uri: str

    def as_json(self, project: int, label_studio_url: str) -> dict[str, Any]:
        """What may be shown. `uri` stays out: an address may have a signature in it, or be the audio itself."""
        shown = {name: getattr(self, name) for name in ("task", "start_s", "end_s", "best_s", "score")}
        audio = read_uri(self.uri, LabelStudioMedia(httpx.URL(label_studio_url))).name
        return shown | {"audio": audio, "url": task_url(label_studio_url, project, self.task)}


@dataclass(eq=False)
class Run:
    """Neighbouring windows `first` to `last` of a recording; `best` is the one with the highest score."""

    sha256: str
    first: int
    last: int
    best: int
    score: float

    def place(self, task: KnownTask, recording: Recording, average_score: float) -> Place:
        """The run's place in a task that holds its recording. Scores count from that of the average window."""
        start_s, _ = window_span(self.first, recording)
        _, end_s = window_span(self.last, recording)
        best_s, _ = window_span(self.best, recording)
        return Place(task.task, start_s, end_s, best_s, self.score - average_score, task.uri)


def join_neighbours(
    windows: Iterable[tuple[str, int, float]], num_tasks: Mapping[str, int], top: int
) -> tuple[list[Run], bool]:
    """Join windows (sha256, index, score), best first, into runs that make `top` places; the runs, best first.

    A run makes a place in each of the `num_tasks` that hold its recording. It takes up neighbours until a window would
    begin one place too many. Returns also whether it came to that: if not, more windows may give more places.
    """
    runs: list[Run] = []
    run_at: dict[tuple[str, int], Run] = {}  # the run that begins or ends at a window
    num_places = 0
    for sha256, index, score in windows:
        left, right = run_at.get((sha256, index - 1)), run_at.get((sha256, index + 1))
        if left and right:  # the window closes the gap between two runs: the better one takes up the other
            run, absorbed = (left, right) if left.score >= right.score else (right, left)
            run.first, run.last = left.first, right.last
            runs.remove(absorbed)
            num_places -= num_tasks.get(sha256, 0)
        elif left:
            run = left
            run.last = index
        elif right:
            run = right
            run.first = index
        elif num_places >= top:
            return runs, True
        else:
            run = Run(sha256, index, index, index, score)
            runs.append(run)
            num_places += num_tasks.get(sha256, 0)
        run_at[sha256, run.first] = run_at[sha256, run.last] = run
    return runs, False


def window_span(index: int, recording: Recording) -> tuple[float, float]:
    """When a window of a recording begins and ends, in seconds, by the rule of `clapboard.audio.windows.windows`.

    The only window of a recording holds all of it, which is longer than a window if an encoder with fusion embedded it.
    """
    if recording.num_windows == 1:
        return 0.0, recording.duration_s
    end_s = min((index + 1) * WINDOW_S, recording.duration_s)
    return max(0.0, end_s - WINDOW_S), end_s
