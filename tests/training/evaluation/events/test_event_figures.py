"""F1 figures of events that can be counted by hand."""

from __future__ import annotations

import pytest

from clapboard.suggest.events.event import Event
from training.evaluation.events.figures import (
    Counts,
    collar_counts,
    edge_errors_s,
    event_counts,
    matches,
    segment_counts,
)


def event(start_s: float, end_s: float, label: int = 0) -> Event:
    return Event(start_s, end_s, label, 1.0)


def test_an_event_is_right_if_more_than_half_of_the_time_is_common_and_the_label_is_right() -> None:
    true = [event(10, 14)]
    assert event_counts([event(11, 14)], true) == Counts(1, 1, 1)  # IoU 3/4
    assert event_counts([event(12, 14)], true) == Counts(0, 1, 1)  # 1/2, which isn't more than half
    assert event_counts([event(10, 14, label=1)], true) == Counts(0, 1, 1)


def test_each_true_event_is_found_once() -> None:
    assert event_counts([event(0, 10), event(1, 10)], [event(0, 10)]) == Counts(1, 2, 1)
    # the first could take either; only one pairing gives both a partner
    true = [event(0, 10), event(2, 12)]
    assert event_counts([event(1, 11), event(0, 8)], true) == Counts(2, 2, 2)


def test_f1_is_between_precision_and_recall() -> None:
    assert Counts(2, 4, 2).f1 == pytest.approx(2 / 3)
    assert (Counts(1, 2, 1) + Counts(1, 2, 1)).f1 == pytest.approx(2 / 3)
    assert Counts().f1 == 1.0
    assert Counts(0, 3, 0).f1 == 0.0


def test_collars_are_a_fifth_of_a_second_or_of_the_length() -> None:
    true = [event(5, 15)]
    assert collar_counts([event(5.19, 16.9)], true).right == 1
    assert collar_counts([event(5.21, 15)], true).right == 0
    assert collar_counts([event(5, 17.1)], true).right == 0
    assert collar_counts([event(1, 1.7)], [event(1, 1.5)]).right == 1
    assert collar_counts([event(1, 1.71)], [event(1, 1.5)]).right == 0


def test_segments_are_the_seconds_that_an_event_touches() -> None:
    assert segment_counts([event(0.5, 2.0)], [event(1.2, 3.5)], 10.0, 1) == Counts(1, 2, 3)
    assert segment_counts([event(0, 2, label=1)], [event(0, 2)], 10.0, 2) == Counts(0, 2, 2)


def test_edges_of_matched_events_alone_are_compared() -> None:
    suggested, true = [event(1, 3), event(20, 30)], [event(1.25, 3.5), event(25, 80)]
    assert edge_errors_s(matches(suggested, true)) == pytest.approx([0.25, 0.5])
