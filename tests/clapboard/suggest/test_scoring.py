"""Scores of embeddings and logits so small that they can be done by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from clapboard.suggest.scoring import exclusive_scores, independent_scores, mean_direction

X, Y = [1.0, 0.0], [0.0, 1.0]


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_a_class_weight_is_the_unit_mean_direction_of_its_prompts() -> None:
    assert mean_direction(array(X)) == pytest.approx(X)
    assert mean_direction(array(X, Y)) == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])
    assert mean_direction(array(X, X, Y)) == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5)])


class TestExclusive:
    def test_one_window_is_the_softmax_of_its_logits(self) -> None:
        scores = exclusive_scores(array([3.0, 4.0]))
        assert scores == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)])

    def test_several_windows_are_the_mean_of_their_softmaxes(self) -> None:
        # each window is certain of another label: ln 3 gives odds of 3 to 1
        sure = math.log(3)
        scores = exclusive_scores(array([sure, 0.0], [0.0, sure], [0.0, sure]))
        assert scores == pytest.approx([(0.75 + 0.25 + 0.25) / 3, (0.25 + 0.75 + 0.75) / 3])

    def test_scores_sum_to_one_and_neither_overflow_nor_vanish(self) -> None:
        scores = exclusive_scores(array([1e4, 0.0, -1e4], [0.0, 1e4, 0.0]))
        assert scores == pytest.approx([0.5, 0.5, 0.0])
        assert np.isfinite(scores).all()

    def test_a_single_label_has_all(self) -> None:
        assert exclusive_scores(array([-7.0])) == pytest.approx([1.0])


class TestIndependent:
    def test_each_label_is_scored_for_itself(self) -> None:
        assert independent_scores(array([0.4, 0.0])) == pytest.approx([1 / (1 + math.exp(-0.4)), 0.5])

    def test_the_window_that_shows_a_label_best_decides(self) -> None:
        sure = math.log(3)
        scores = independent_scores(array([sure, -sure, 0.0], [0.0, sure, -sure]))
        assert scores == pytest.approx([0.75, 0.75, 0.5])

    def test_it_neither_overflows_nor_warns(self) -> None:
        assert independent_scores(array([1e4, -1e4])) == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("rule", [exclusive_scores, independent_scores])
def test_several_recordings_windows_are_scored_as_each_alone(rule: Callable[..., np.ndarray]) -> None:
    logits = np.random.default_rng(1).normal(scale=5, size=(9, 4)).astype(np.float32)
    found = rule(logits, np.array([0, 1, 6]))
    assert found.dtype == np.float32
    for scores, windows in zip(found, (logits[:1], logits[1:6], logits[6:]), strict=True):
        assert scores.tolist() == rule(windows).tolist()
