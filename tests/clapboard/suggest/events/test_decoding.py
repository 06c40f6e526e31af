"""Decoding: dips, flicker and changes of label, in frames of half a second."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from clapboard.audio.levels import LEVEL_S, NUM_BANDS
from clapboard.suggest.events.decoding import decoded_spans
from clapboard.suggest.events.level_jumps import LevelJumps
from clapboard.suggest.scoring import Array

FRAME_S = 0.5


def frames(*labels: list[float]) -> Array:
    return np.array(labels, np.float32).T


def spans(probabilities: Array, levels: Array | None = None) -> list[list[tuple[float, float]]]:
    jumps = None if levels is None else LevelJumps(levels, LEVEL_S)
    return decoded_spans(probabilities, FRAME_S, len(probabilities) * FRAME_S, jumps)


def test_a_dip_does_not_cut_an_event_in_two() -> None:
    row = [0.02] * 6 + [0.95] * 4 + [0.3] + [0.95] * 4 + [0.02] * 6
    (own,) = spans(frames(row))
    assert len(own) == 1
    assert own[0] == pytest.approx((3.0, 7.5), abs=0.5)


def test_a_frame_that_flickers_is_no_event() -> None:
    row = [0.02] * 8 + [0.6] + [0.02] * 8
    assert spans(frames(row)) == [[]]


def test_the_label_with_most_evidence_has_the_whole_event() -> None:
    dog = [0.02] * 6 + [0.9, 0.9, 0.4, 0.9, 0.9] + [0.02] * 6
    cat = [0.02] * 6 + [0.1, 0.1, 0.6, 0.1, 0.1] + [0.02] * 6
    of_dog, of_cat = spans(frames(dog, cat))
    assert len(of_dog) == 1
    assert of_cat == []


def test_one_label_after_another_are_two_events() -> None:
    dog, cat = [0.02] * 6 + [0.95] * 6 + [0.02] * 12, [0.02] * 12 + [0.95] * 6 + [0.02] * 6
    ((dog_span,), (cat_span,)) = spans(frames(dog, cat))
    assert dog_span[1] == pytest.approx(6.0, abs=0.3)
    assert cat_span[0] == dog_span[1]


def test_events_begin_and_end_where_the_level_jumps() -> None:
    levels = np.random.default_rng(0).normal(-40, 1, (200, NUM_BANDS)).astype(np.float32)
    levels[round(3.4 / LEVEL_S) : round(5.85 / LEVEL_S), :8] += 15
    row = [0.02] * 6 + [0.5, 0.9, 0.9, 0.9, 0.9, 0.6] + [0.02] * 8
    ((span,),) = spans(frames(row), levels)
    assert span == pytest.approx((3.4, 5.85), abs=LEVEL_S)


def test_of_all_sequences_the_best_one_is_found() -> None:
    """By brute force over all sequences of three labels and none, in a recording of few steps."""
    from clapboard.suggest.events import decoding

    rng = np.random.default_rng(1)
    for _ in range(20):
        evidence, costs = rng.normal(0, 2, (5, 3)), rng.uniform(0, 3, (2, 5))
        relabel = np.minimum(*costs) + decoding._RELABEL_SHARE * decoding._CHANGE_COST

        def value(states: tuple[int, ...]) -> float:
            total = 0.0
            for step, (before, state) in enumerate(itertools.pairwise((-1, *states))):
                if before != state:
                    change = costs[0] if before < 0 else costs[1] if state < 0 else relabel  # noqa: B023
                    total -= change[step]
                total += evidence[step, state] if state >= 0 else 0.0  # noqa: B023
            return total

        best = max(value(states) for states in itertools.product((-1, 0, 1, 2), repeat=5))
        assert value(tuple(decoding._best_states(evidence, *costs).tolist())) == pytest.approx(best)
