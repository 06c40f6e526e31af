from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics

from clapboard.head import ControlHead
from clapboard.labels import label_space_of
from training.evaluate import Report, Truth, head_scores, report, zero_shot
from training.recordings import Recording

LABELS = ["dog", "rain", "clock", "bell"]


class LoudnessEncoder:
    """Places a sound by its loudness and a text by the words «loud» and «quiet» in it."""

    logit_scale = 10.0

    def embed_recording(self, recording: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        loud = np.abs(recording).max() > 0.5
        return np.array([1.0, 0.0] if loud else [0.0, 1.0], np.float32)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[1.0, 0.0] if "loud" in text else [0.0, 1.0] for text in texts], np.float32)


def recording(kind: str, level: float, seconds: int = 1) -> Recording:
    return Recording(kind, np.full(48_000 * seconds, level, np.float32))


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


def test_a_clips_scores_are_the_mean_over_its_windows() -> None:
    head = ControlHead(np.zeros(2, np.float32), 100 * np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    clips = [np.float32([[1, 0]]), np.float32([[1, 0], [0, 1]])]
    (control,) = label_space_of(["a", "b"]).predicted
    assert head_scores(control, head, clips) == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))


# Zero-shot


def test_the_zero_shot_report_counts_what_was_called_what() -> None:
    recordings = [recording("loud", 0.9), recording("loud", 0.9), recording("loud", 0.1), recording("quiet", 0.1)]
    found = zero_shot(LoudnessEncoder(), recordings)
    assert found.labels == ("loud", "quiet")
    assert found.accuracy == 0.75
    assert found.recall_by_label == {"loud": pytest.approx(2 / 3), "quiet": 1.0}
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert found.confusion == ((2, 1), (0, 1))
    assert "accuracy 0.750" in str(found)
    assert found.calibration_error == pytest.approx(0.25, abs=1e-3)


def test_prompts_may_be_given_and_may_name_kinds_that_no_recording_has() -> None:
    prompts = {"noisy": ["so loud"], "calm": ["so quiet", "very quiet"], "third": ["quiet too"]}
    found = zero_shot(LoudnessEncoder(), [recording("noisy", 0.9), recording("calm", 0.1)], prompts)
    assert found.labels == ("noisy", "calm", "third")
    assert found.accuracy == 1.0
