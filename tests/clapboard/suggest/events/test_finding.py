"""Frames so few that the events can be found by hand; a frame is one second."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clapboard.audio.levels import LEVEL_S
from clapboard.suggest.events.event import Event, EventRules, LabelRules
from clapboard.suggest.events.finding import Method, find_events
from clapboard.suggest.scoring import Array


def scores(*labels: list[float]) -> Array:
    return np.array(labels, np.float32).T


def events(
    probabilities: Array,
    *rules: LabelRules,
    gate: Array | None = None,
    most: int = 200,
    method: Method = "hysteresis",
) -> list[Event]:
    return find_events(probabilities, 1.0, float(len(probabilities)), EventRules(rules, most), gate, method=method)


@pytest.mark.parametrize("method", ["decoding", "hysteresis"])
def test_where_nothing_is_heard_nothing_is_suggested(method: Method) -> None:
    assert events(scores([0.1, 0.2, 0.24, 0.2]), LabelRules(), method=method) == []
    assert events(np.zeros((0, 1), np.float32), LabelRules(), method=method) == []


def test_two_labels_at_once_are_two_events_in_order_of_their_start() -> None:
    found = events(scores([0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0]), LabelRules(), LabelRules())
    assert [(event.label, event.score) for event in found] == [(1, 1.0), (0, 1.0)]
    assert found[0].start_s == pytest.approx(1.0, abs=0.5)
    assert found[1].end_s == pytest.approx(5.0, abs=0.5)


def test_a_gap_shorter_than_the_rule_belongs_to_the_event() -> None:
    row = [0, 1, 1, 0, 0, 1, 1, 0.0]
    assert len(events(scores(row), LabelRules(gap_s=1.0))) == 2
    assert len(events(scores(row), LabelRules(gap_s=4.0))) == 1


def test_events_shorter_than_the_rule_are_left_out_and_longer_ones_are_cut() -> None:
    row = [0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0.0]
    assert len(events(scores(row), LabelRules(min_s=3.0))) == 1
    cut = events(scores(row), LabelRules(min_s=3.0, max_s=4.0))
    assert len(cut) == 2
    assert cut[0].end_s == cut[1].start_s
    assert all(event.end_s - event.start_s <= 4.0 for event in cut)


def test_the_most_certain_events_are_kept_in_their_order() -> None:
    row = [0, 0.9, 0, 0, 0.6, 0, 0, 0.8, 0.0]
    found = events(scores(row), LabelRules(gap_s=0.1), most=2)
    assert [event.score for event in found] == pytest.approx([0.9, 0.8])


def test_a_label_that_its_window_does_not_have_is_not_found_in_the_frames() -> None:
    row = scores([0, 1, 1, 0.0])
    assert events(row, LabelRules(), gate=np.full((4, 1), 0.2, np.float32)) == []
    assert len(events(row, LabelRules(), gate=np.full((4, 1), 0.7, np.float32))) == 1


_rules = st.builds(
    LabelRules,
    threshold=st.floats(0.05, 1),
    min_s=st.floats(0, 5),
    max_s=st.floats(0.5, 20),
    gap_s=st.floats(0, 5),
)


@given(
    st.integers(0, 40).flatmap(lambda n: arrays(np.float32, (n, 2), elements=st.floats(0, 1, width=32))),
    st.tuples(_rules, _rules),
    st.integers(0, 20),
    st.floats(0.01, 1),
    st.sampled_from(["decoding", "hysteresis"]),
    st.booleans(),
)
def test_events_lie_in_the_recording_and_never_overlap_within_a_label(
    probabilities: Array,
    rules: tuple[LabelRules, LabelRules],
    most: int,
    last: float,
    method: Method,
    with_levels: bool,
) -> None:
    duration_s = max(0.0, (len(probabilities) - 1 + last) * 0.625)
    levels = np.random.default_rng(most).normal(-40, 6, (int(duration_s / LEVEL_S), 16)).astype(np.float32)
    found = find_events(
        probabilities,
        0.625,
        duration_s,
        EventRules(rules, most),
        levels=levels if with_levels else None,
        method=method,
    )
    assert len(found) <= most
    for label, rule in enumerate(rules):
        own = [event for event in found if event.label == label]
        for event, following in itertools.pairwise(own):
            assert event.end_s <= following.start_s
        for event in own:
            assert 0.0 <= event.start_s < event.end_s <= duration_s
            assert rule.threshold - 1e-6 <= event.score <= 1.0
            assert event.end_s - event.start_s <= rule.max_s + 1e-9
