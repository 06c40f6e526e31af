"""How well events are found after so many reviewed recordings, by method, over random draws of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clapboard.errors import TrainingError
from training.evaluation.events.figures import Counts, collar_counts, event_counts, segment_counts
from training.evaluation.events.methods import METHODS, Found, ZeroShot, find_by_method
from training.evaluation.events.psds import psds1
from training.evaluation.events.recordings import EmbeddedRecording


@dataclass(frozen=True)
class Point:
    """A method's figures after `shots` reviewed recordings, as means over the draws; `worst` is the lowest event F1."""

    method: str
    shots: int
    event_f1: float
    segment_f1: float
    collar_f1: float
    psds1: float | None  # None where sed_scores_eval isn't there
    num_seeds: int
    worst: float


@dataclass(frozen=True, eq=False)
class Draw:
    """Recordings to learn from and others to test on; no group is on both sides."""

    reviewed: list[EmbeddedRecording]
    test: list[EmbeddedRecording]


def measure(
    zero_shot: ZeroShot,
    recordings: Sequence[EmbeddedRecording],
    shots: Sequence[int],
    num_seeds: int,
    *,
    on_draw: Callable[[], None] = lambda: None,
) -> list[Point]:
    """The points of each number of shots and each method. `on_draw` is called after each draw.

    In a draw, all numbers of shots are tested on the same recordings. Raises `TrainingError` if there are too few.
    """
    figures: dict[tuple[int, str], list[tuple[float, float, float, float | None]]] = {}
    for seed in range(num_seeds):
        for number, draw in draws(recordings, shots, seed):
            for method in METHODS:
                found = find_by_method(method, zero_shot, draw.reviewed, draw.test)
                own = _figures(found, draw.test, len(zero_shot.control.labels))
                figures.setdefault((number, method), []).append(own)
            on_draw()
    return [_point(method, number, figures[number, method]) for number in shots for method in METHODS]


def draws(recordings: Sequence[EmbeddedRecording], shots: Sequence[int], seed: int) -> Iterator[tuple[int, Draw]]:
    """For each number of shots, the first so many recordings of the groups that aren't tested on.

    Raises `TrainingError` if nothing is left to test on, or too little to learn from.
    """
    rng = np.random.default_rng(seed)
    groups = rng.permutation(sorted({item.listed.group for item in recordings}))
    by_group = {group: [item for item in recordings if item.listed.group == group] for group in groups}
    most, learning, num_groups = max(shots), list[EmbeddedRecording](), 0
    while len(learning) < most and num_groups < len(groups) - 1:
        learning += by_group[groups[num_groups]]
        num_groups += 1
    if len(learning) < most or num_groups == len(groups):
        raise TrainingError(
            f"{len(recordings)} recordings of {len(groups)} groups are too few to learn from {most} and test on "
            "others: groups stay together, so list more of them, or ask for fewer shots."
        )
    test = [item for group in groups[num_groups:] for item in by_group[group]]
    order = rng.permutation(len(learning))
    for number in shots:
        yield number, Draw([learning[place] for place in order[:number]], test)


def _figures(
    found: Sequence[Found], recordings: Sequence[EmbeddedRecording], num_labels: int
) -> tuple[float, float, float, float | None]:
    """Event F1, segment F1, collar F1 and PSDS of what was found in recordings."""
    by_event = by_segment = by_collar = Counts()
    for own, item in zip(found, recordings, strict=True):
        true = item.listed.events
        by_event += event_counts(own.events, true)
        by_collar += collar_counts(own.events, true)
        by_segment += segment_counts(own.events, true, item.frames.duration_s, num_labels)
    return by_event.f1, by_segment.f1, by_collar.f1, psds1(found, recordings, num_labels)


def _point(method: str, shots: int, figures: Sequence[tuple[float, float, float, float | None]]) -> Point:
    events, segments, collars, psds = zip(*figures, strict=True)
    known = [value for value in psds if value is not None]
    return Point(
        method=method,
        shots=shots,
        event_f1=float(np.mean(events)),
        segment_f1=float(np.mean(segments)),
        collar_f1=float(np.mean(collars)),
        psds1=float(np.mean(known)) if known else None,
        num_seeds=len(figures),
        worst=float(min(events)),
    )
