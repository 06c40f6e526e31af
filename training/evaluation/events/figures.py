"""Events beside true ones → F1 by event, by collar and by second, and how far the edges are off."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from clapboard.suggest.events.event import Event

MIN_IOU = 0.5
COLLAR_S = 0.2
COLLAR_SHARE = 0.2
SEGMENT_S = 1.0

Pairs = list[tuple[Event, Event]]


@dataclass(frozen=True)
class Counts:
    """What was right, what was suggested, and what is true."""

    right: int = 0
    suggested: int = 0
    true: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.right + other.right, self.suggested + other.suggested, self.true + other.true)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 where nothing is true and nothing is suggested."""
        total = self.suggested + self.true
        return 2 * self.right / total if total else 1.0


def iou(one: Event, other: Event) -> float:
    """The share of both events' time that they have in common."""
    common = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    whole = max(one.end_s, other.end_s) - min(one.start_s, other.start_s)
    return max(0.0, common) / whole if whole > 0 else 0.0


def matches(suggested: Sequence[Event], true: Sequence[Event]) -> Pairs:
    """Pairs of a suggested and a true event of the same label with an IoU above one half; no event is in two pairs."""
    return _paired(suggested, true, lambda one, other: iou(one, other) if iou(one, other) > MIN_IOU else 0.0)


def collar_matches(suggested: Sequence[Event], true: Sequence[Event]) -> Pairs:
    """Pairs of the same label whose starts are at most 0.2 s apart, and whose ends are at most that or 20 % apart.

    20 % of the true event's length, as in the DCASE challenges (Mesaros et al., «Metrics for polyphonic sound event
    detection», 2016).
    """

    def agreement(one: Event, other: Event) -> float:
        end_collar_s = max(COLLAR_S, COLLAR_SHARE * (other.end_s - other.start_s))
        agrees = abs(one.start_s - other.start_s) <= COLLAR_S and abs(one.end_s - other.end_s) <= end_collar_s
        return 1.0 if agrees else 0.0

    return _paired(suggested, true, agreement)


def event_counts(suggested: Sequence[Event], true: Sequence[Event]) -> Counts:
    """The counts by which a recording's event F1 is computed."""
    return Counts(len(matches(suggested, true)), len(suggested), len(true))


def collar_counts(suggested: Sequence[Event], true: Sequence[Event]) -> Counts:
    """The counts by which a recording's collar F1 is computed."""
    return Counts(len(collar_matches(suggested, true)), len(suggested), len(true))


def segment_counts(suggested: Sequence[Event], true: Sequence[Event], duration_s: float, num_labels: int) -> Counts:
    """The counts over the recording's seconds and the labels: a label is active in a second that it touches."""
    ours, theirs = (_active(events, duration_s, num_labels) for events in (suggested, true))
    return Counts(int((ours & theirs).sum()), int(ours.sum()), int(theirs.sum()))


def edge_errors_s(pairs: Iterable[tuple[Event, Event]]) -> list[float]:
    """How far the start and the end of each matched event are off, in seconds."""
    return [abs(edge) for one, other in pairs for edge in (one.start_s - other.start_s, one.end_s - other.end_s)]


def _active(events: Sequence[Event], duration_s: float, num_labels: int) -> npt.NDArray[np.bool_]:
    active = np.zeros((max(1, math.ceil(duration_s / SEGMENT_S)), num_labels), bool)
    for event in events:
        active[int(event.start_s / SEGMENT_S) : math.ceil(event.end_s / SEGMENT_S), event.label] = True
    return active


def _paired(suggested: Sequence[Event], true: Sequence[Event], agreement: Callable[[Event, Event], float]) -> Pairs:
    """The pairs with the most agreements in all, of events of the same label that agree at all."""
    if not suggested or not true:
        return []
    table = np.array([[agreement(a, b) if a.label == b.label else 0.0 for b in true] for a in suggested])
    # One more pair is worth more than any better agreement.
    rows, columns = linear_sum_assignment(-np.where(table > 0, 1.0 + table / (1 + table.size), 0.0))
    return [(suggested[a], true[b]) for a, b in zip(rows, columns, strict=True) if table[a, b] > 0]
