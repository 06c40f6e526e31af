from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics

from training.evaluate import Report, Truth, report

LABELS = ["dog", "rain", "clock", "bell"]


def exclusive(num_clips: int = 60, num_labels: int = 4) -> tuple[npt.NDArray[np.float32], Truth]:
    rng = np.random.default_rng(5)
    truth = np.eye(num_labels, dtype=bool)[rng.integers(0, num_labels, num_clips)]
    scores = rng.dirichlet(np.ones(num_labels), num_clips) + 0.4 * truth
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), truth


def independent(num_clips: int = 60, num_labels: int = 4) -> tuple[npt.NDArray[np.float32], Truth]:
    rng = np.random.default_rng(6)
    truth = rng.random((num_clips, num_labels)) < 0.3
    return np.clip(rng.random((num_clips, num_labels)) * 0.8 + 0.2 * truth, 0, 1).round(1).astype(np.float32), truth


def test_figures_of_exclusive_labels_are_those_of_scikit_learn() -> None:
    scores, truth = exclusive()
    found = report(scores, truth, LABELS, multiple=False)
    called, right = scores.argmax(axis=1), truth.argmax(axis=1)
    assert found.num_clips == 60
    assert found.support == tuple(np.bincount(right))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(right, called))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(right, called, average="macro"))
    assert found.recall == pytest.approx(metrics.recall_score(right, called, average=None))
    assert found.precision == pytest.approx(metrics.precision_score(right, called, average=None))
    assert np.array_equal(found.confusion, metrics.confusion_matrix(right, called))
    assert found.mean_average_precision is None


def test_figures_of_independent_labels_are_those_of_scikit_learn() -> None:
    scores, truth = independent()
    found = report(scores, truth, LABELS, multiple=True)
    called = scores >= 0.5
    assert found.support == tuple(truth.sum(axis=0))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, called))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, called, average="macro"))
    assert found.mean_average_precision == pytest.approx(metrics.average_precision_score(truth, scores))
    assert found.recall == pytest.approx(metrics.recall_score(truth, called, average=None))
    assert found.precision == pytest.approx(metrics.precision_score(truth, called, average=None))
    assert np.array_equal(found.confusion, metrics.multilabel_confusion_matrix(truth, called))


def test_a_label_that_nobody_has_or_was_called_counts_for_nothing() -> None:
    scores, truth = independent()
    truth[:, 2], scores[:, 2] = False, 0.1
    found = report(scores, truth, LABELS, multiple=True)
    others = [0, 1, 3]
    assert found.mean_average_precision == pytest.approx(
        metrics.average_precision_score(truth[:, others], scores[:, others])
    )
    assert found.macro_f1 == pytest.approx(
        metrics.f1_score(truth[:, others], scores[:, others] >= 0.5, average="macro")
    )
    assert (found.recall[2], found.precision[2]) == (0, 0)


def test_a_single_independent_label_has_figures_too() -> None:
    scores, truth = np.float32([[0.9], [0.8], [0.2], [0.6]]), np.array([[True], [True], [True], [False]])
    found = report(scores, truth, ["dog"], multiple=True)
    assert (found.accuracy, found.recall, found.precision) == (0.5, (pytest.approx(2 / 3),), (pytest.approx(2 / 3),))
    assert found.confusion == (((0, 1), (1, 2)),)
    assert found.mean_average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    scores = np.float32([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.45, 0.55]])
    truth = np.array([[True, False], [False, True], [False, True], [True, False]])
    found = report(scores, truth, ["a", "b"], multiple=False)
    assert found.calibration_error == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.8 - 1) + abs(0.55 - 0)) / 4, abs=1e-6)
    alone = report(np.float32([[0.9], [0.1], [0.1]]), np.array([[True], [False], [True]]), ["a"], multiple=True)
    assert alone.calibration_error == pytest.approx((0.1 + 2 * abs(0.1 - 0.5)) / 3, abs=1e-6)
    sure = report(np.float32([[1.0, 0.0]]), np.array([[True, False]]), ["a", "b"], multiple=False)
    assert sure.calibration_error == 0


@pytest.mark.parametrize("multiple", [False, True])
def test_a_report_survives_json(multiple: bool) -> None:
    scores, truth = independent() if multiple else exclusive()
    found = report(scores, truth, LABELS, multiple=multiple)
    assert Report.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert ("mAP" in str(found)) is multiple


def test_no_clips_or_another_number_of_labels_are_refused() -> None:
    scores, truth = exclusive()
    with pytest.raises(ValueError, match="N ≥ 1"):
        report(scores[:0], truth[:0], LABELS, multiple=False)
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        report(scores, truth, LABELS[:3], multiple=False)
