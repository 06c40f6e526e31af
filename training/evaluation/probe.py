"""A linear probe: logistic regression on frozen embeddings, for exclusive labels or independent ones.

It minimises scikit-learn's objective, C · Σ cross-entropy + ½‖W‖² with an unpenalised bias, for all labels at once: 200
labels on 40,000 clips take one matrix product a step instead of 200 fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from clapboard.suggest.scoring import Array
from training.evaluate import Truth

Matrix = npt.NDArray[np.float64]
Metric = Callable[[Array, Truth], float]

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""The values of C to try. They are large because embeddings have length 1 and differ little."""

_BLOCK_ROWS = 8_192
_MAX_STEPS = 500
_TOLERANCE = 1e-6
_SMALL = 1 << 25  # multiplications in a step, below which threads wait longer than they compute


@dataclass(frozen=True, eq=False)
class Probe:
    """Logits `x @ weights.T + bias`."""

    weights: Array  # [L, D]
    bias: Array  # [L]
    strength: float

    def logits(self, embeddings: Array) -> Array:
        """The logits `[N, L]` of embeddings `[N, D]`."""
        return embeddings @ self.weights.T + self.bias


def tune(
    train: Array, truth: Truth, validation: Array, validation_truth: Truth, exclusive: bool, metric: Metric
) -> float:
    """The strength in `STRENGTHS` whose probe does best on the validation clips; the smallest of equals."""
    best, best_value = STRENGTHS[0], -np.inf
    for strength, probe in zip(STRENGTHS, _path(train, truth, exclusive, STRENGTHS), strict=True):
        value = metric(probe.logits(validation), validation_truth)
        if value > best_value:
            best, best_value = strength, value
    return best


def fit(embeddings: Array, truth: Truth, strength: float, *, exclusive: bool) -> Probe:
    """Fits a probe to embeddings `[N, D]` with truth `[N, L]`. Raises `ValueError` if there are no clips."""
    (probe,) = _path(embeddings, truth, exclusive, (strength,))
    return probe


def _path(embeddings: Array, truth: Truth, exclusive: bool, strengths: Sequence[float]) -> list[Probe]:
    """The probes of ascending strengths, each fit started from the previous one."""
    if not len(embeddings):
        raise ValueError("a probe needs clips")
    mean = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = embeddings - mean  # gives the same probe in fewer steps, since the bias isn't penalised
    num_labels, dim = truth.shape[1], embeddings.shape[1]
    flat = np.zeros(num_labels * (dim + 1))
    probes = []
    one_thread = len(embeddings) * flat.size < _SMALL
    with threadpool_limits(1 if one_thread else None, "blas"):
        for strength in strengths:
            penalty = 1 / (strength * len(embeddings))

            def loss(point: Matrix, penalty: float = penalty) -> tuple[float, Matrix]:
                return _loss(point, centred, truth, exclusive, penalty)

            options: dict[str, Any] = {"maxiter": _MAX_STEPS, "gtol": _TOLERANCE, "ftol": 1e-12}
            flat = minimize(loss, flat, jac=True, method="L-BFGS-B", options=options).x
            weights = flat.reshape(num_labels, dim + 1).astype(np.float32)
            probes.append(Probe(weights[:, :-1], weights[:, -1] - weights[:, :-1] @ mean, strength))
    return probes


def _loss(point: Matrix, x: Array, truth: Truth, exclusive: bool, penalty: float) -> tuple[float, Matrix]:
    """The objective (mean cross-entropy plus penalty) and its gradient, computed block by block."""
    matrix = point.reshape(truth.shape[1], -1)
    weights, bias = matrix[:, :-1].astype(np.float32), matrix[:, -1].astype(np.float32)
    total, gradient = 0.0, np.zeros_like(matrix)
    for start in range(0, len(x), _BLOCK_ROWS):
        rows, right = x[start : start + _BLOCK_ROWS], truth[start : start + _BLOCK_ROWS]
        value, error = (_exclusive if exclusive else _independent)(rows @ weights.T + bias, right)
        total += value
        gradient[:, :-1] += error.T @ rows
        gradient[:, -1] += error.sum(axis=0)
    gradient /= len(x)
    gradient[:, :-1] += penalty * matrix[:, :-1]
    return total / len(x) + 0.5 * penalty * float(np.square(matrix[:, :-1]).sum()), gradient.ravel()


def _exclusive(logits: Array, truth: Truth) -> tuple[float, Array]:
    """The summed cross-entropy of a softmax, and its gradient by the logits `[B, L]`."""
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    sums = odds.sum(axis=1, keepdims=True)
    return float(np.log(sums).sum(dtype=np.float64) - logits[truth].sum(dtype=np.float64)), odds / sums - truth


def _independent(logits: Array, truth: Truth) -> tuple[float, Array]:
    """The summed cross-entropy of sigmoids, and its gradient by the logits `[B, L]`."""
    softplus = np.logaddexp(np.float32(0), logits)
    return float(softplus.sum(dtype=np.float64) - logits[truth].sum(dtype=np.float64)), np.exp(
        logits - softplus
    ) - truth
