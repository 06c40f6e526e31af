"""How long a person works on a recording's events: correcting suggestions, or drawing all of them.

A simulation, with a cost for each thing that a hand does in the editor. Listening isn't counted: it takes as long
either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clapboard.suggest.events.event import Event
from training.evaluation.events.figures import iou


@dataclass(frozen=True)
class Costs:
    """Seconds for each action, and how far an edge may be off before somebody drags it."""

    draw_s: float = 4.0  # from an edge to the other
    label_s: float = 1.5  # choose a label for a region
    drag_s: float = 2.0  # move one edge
    delete_s: float = 1.5  # select a region and delete it
    tolerated_s: float = 0.25


COSTS = Costs()


def drawing_s(true: Sequence[Event], costs: Costs = COSTS) -> float:
    """Seconds to draw and label each event."""
    return len(true) * (costs.draw_s + costs.label_s)


def correcting_s(suggested: Sequence[Event], true: Sequence[Event], costs: Costs = COSTS) -> float:
    """Seconds to turn the suggestions into the true events.

    Each true event takes the free suggestion that overlaps it most, of its own label if there is one, where correcting
    that is quicker than drawing anew; what is left of the suggestions is deleted.
    """
    free, spent = list(suggested), 0.0
    for event in true:
        best = max(free, key=lambda other: (iou(other, event), other.label == event.label), default=None)
        anew = costs.draw_s + costs.label_s
        if best is None or iou(best, event) == 0 or _correction_s(best, event, costs) > anew:
            spent += anew
            continue
        free.remove(best)
        spent += _correction_s(best, event, costs)
    return spent + len(free) * costs.delete_s


def _correction_s(suggested: Event, true: Event, costs: Costs) -> float:
    edges_s = (abs(suggested.start_s - true.start_s), abs(suggested.end_s - true.end_s))
    dragged = sum(edge_s > costs.tolerated_s for edge_s in edges_s)
    return dragged * costs.drag_s + (costs.label_s if suggested.label != true.label else 0.0)
