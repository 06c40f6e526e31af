from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from clapboard.suggest.scoring import Array
from training.evaluate import Truth
from training.evaluation import probe as module
from training.evaluation.probe import STRENGTHS, fit, tune


def clips(seed: int, num_clips: int = 120, num_labels: int = 3, *, exclusive: bool) -> tuple[Array, Truth]:
    """Unit-norm embeddings that lean towards what is true of them."""
    rng = np.random.default_rng(seed)
    truth = (
        np.eye(num_labels, dtype=bool)[rng.integers(num_labels, size=num_clips)]
        if exclusive
        else rng.random((num_clips, num_labels)) < 0.4
    )
    rows = rng.standard_normal((num_clips, 6)) + truth @ rng.standard_normal((num_labels, 6)) + 2
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


def accuracy(logits: Array, truth: Truth) -> float:
    return float((logits.argmax(axis=1) == truth.argmax(axis=1)).mean())


@pytest.mark.parametrize("strength", [0.1, 1.0, 100.0])
def test_labels_that_exclude_each_other_are_scikit_learns_regression(strength: float) -> None:
    x, truth = clips(0, exclusive=True)
    found = fit(x, truth, strength, exclusive=True)
    reference = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(x, truth.argmax(axis=1))
    logits = reference.decision_function(x)
    ours = found.logits(x)
    assert ours - ours.mean(axis=1, keepdims=True) == pytest.approx(
        logits - logits.mean(axis=1, keepdims=True), abs=0.02
    )
    assert np.array_equal(ours.argmax(axis=1), reference.predict(x))


@pytest.mark.parametrize("strength", [0.1, 1.0, 100.0])
def test_labels_for_themselves_are_scikit_learns_one_against_the_rest(strength: float) -> None:
    x, truth = clips(1, exclusive=False)
    found = fit(x, truth, strength, exclusive=False)
    reference = OneVsRestClassifier(LogisticRegression(C=strength, tol=1e-8, max_iter=5000)).fit(x, truth)
    assert found.logits(x) == pytest.approx(reference.decision_function(x), abs=0.02)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, truth = clips(2, exclusive=True)
    whole = fit(x, truth, 1.0, exclusive=True).logits(x)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    assert fit(x, truth, 1.0, exclusive=True).logits(x) == pytest.approx(whole, abs=1e-3)


def test_a_label_that_no_clip_has_is_never_called() -> None:
    x, truth = clips(3, exclusive=True)
    with_another = np.hstack([truth, np.zeros((len(truth), 1), bool)])
    assert (fit(x, with_another, 10.0, exclusive=True).logits(x).argmax(axis=1) < 3).all()


def test_the_strength_is_the_one_that_validates_best_and_the_weakest_of_equals() -> None:
    x, truth = clips(4, exclusive=True)
    other, other_truth = clips(4, num_clips=60, exclusive=True)
    values = [accuracy(fit(x, truth, c, exclusive=True).logits(other), other_truth) for c in STRENGTHS]
    assert tune(x, truth, other, other_truth, True, accuracy) == STRENGTHS[int(np.argmax(values))]
    assert len(set(values)) > 1
    assert tune(x, truth, other, other_truth, True, lambda *_: 0.5) == STRENGTHS[0]


def test_no_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="needs clips"):
        fit(np.zeros((0, 4), np.float32), np.zeros((0, 2), bool), 1.0, exclusive=True)
