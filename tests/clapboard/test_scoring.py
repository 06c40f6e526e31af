"""Scores of embeddings so small that they can be done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clapboard.scoring import class_weight, exclusive_scores, independent_scores

X, Y = [1.0, 0.0], [0.0, 1.0]


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_a_class_weight_is_the_unit_mean_direction_of_its_prompts() -> None:
    assert class_weight(array(X)) == pytest.approx(X)
    assert class_weight(array(X, Y)) == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])
    assert class_weight(array(X, X, Y)) == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5)])


class TestExclusive:
    def test_one_window_is_the_softmax_of_its_scaled_cosines(self) -> None:
        # cosines 0.6 and 0.8, scale 5: odds e^3 and e^4
        scores = exclusive_scores(array([0.6, 0.8]), array(X, Y), 5.0)
        assert scores == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)])

    def test_several_windows_are_the_mean_of_their_softmaxes(self) -> None:
        # each window is certain of another label: scale ln 3 gives odds of 3 to 1
        scores = exclusive_scores(array(X, Y, Y), array(X, Y), math.log(3))
        assert scores == pytest.approx([(0.75 + 0.25 + 0.25) / 3, (0.25 + 0.75 + 0.75) / 3])

    def test_scores_sum_to_one_and_neither_overflow_nor_vanish(self) -> None:
        scores = exclusive_scores(array(X, Y), array(X, Y, [-1.0, 0.0]), 1e4)
        assert scores == pytest.approx([0.5, 0.5, 0.0])
        assert np.isfinite(scores).all()

    def test_a_single_label_has_all(self) -> None:
        assert exclusive_scores(array(Y), array(X), 10.0) == pytest.approx([1.0])


class TestIndependent:
    def test_a_label_is_weighed_against_the_neutral_prompts(self) -> None:
        # cosines 0.8 and 0.6 against 0.6: margins 2·0.2 and 0
        scores = independent_scores(array([0.8, 0.6]), array(X, Y), np.array(Y, np.float32), 2.0)
        assert scores == pytest.approx([1 / (1 + math.exp(-0.4)), 0.5])

    def test_the_window_that_shows_a_label_best_decides(self) -> None:
        neutral = np.zeros(2, np.float32)
        scores = independent_scores(array(X, Y), array(X, Y, [-1.0, 0.0]), neutral, math.log(3))
        assert scores == pytest.approx([0.75, 0.75, 0.5])

    def test_it_neither_overflows_nor_warns(self) -> None:
        scores = independent_scores(array(X), array(X, [-1.0, 0.0]), np.array(Y, np.float32), 1e4)
        assert scores == pytest.approx([1.0, 0.0])
