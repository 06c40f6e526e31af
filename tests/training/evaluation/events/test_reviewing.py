"""The simulated reviewer's seconds, counted by hand: draw 4, label 1.5, drag 2, delete 1.5."""

from __future__ import annotations

import pytest

from clapboard.suggest.events.event import Event
from training.evaluation.events.reviewing import correcting_s, drawing_s


def event(start_s: float, end_s: float, label: int = 0) -> Event:
    return Event(start_s, end_s, label, 1.0)


TRUE = [event(1, 3), event(10, 14, 1)]


def test_drawing_costs_the_same_for_each_event() -> None:
    assert drawing_s(TRUE) == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("suggested", "seconds"),
    [
        (TRUE, 0.0),
        ([], 11.0),
        ([event(1.2, 3.0), event(10, 14, 1)], 0.0),  # an edge 0.2 s off is left as it is
        ([event(1.2, 3.5), event(10, 14, 1)], 2.0),
        ([event(1, 3, 1), event(10, 14, 1)], 1.5),
        ([*TRUE, event(20, 22)], 1.5),
        ([event(1, 3, 1), event(2, 9, 0), event(10, 14, 1)], 3.0),  # relabelled, and the other deleted
        ([event(2.5, 9, 1), event(10, 14, 1)], 5.5),  # as quick as drawing anew
    ],
)
def test_correcting_costs_what_is_wrong(suggested: list[Event], seconds: float) -> None:
    assert correcting_s(suggested, TRUE) == pytest.approx(seconds)
