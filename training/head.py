"""A head from a few labels: logistic regression that learns from the labels what the texts are worth.

With f(x) the zero-shot logits, m the mean of all the project's embeddings, and φ(x) = (x − m) / r with r the root mean
square of |x − m|, a control's logits are

    z(x) = α·f(x) − β·f(m) + γ + U φ(x).

The texts' worth. α says how much the texts are worth, β how much of their likeness to everything is nuisance (α = β
is centred zero-shot), γ is a common level, which matters only where labels don't exclude each other. They are three
numbers for all classes together, so that even one label a class says much about them: their posterior mean under
U = 0 and N(1, 1), N(0, 1), N(0, 1), whose centre is zero-shot.

The classes' own. What the texts don't explain, each class's row of U learns: the most probable one under
U ~ N(0, τ²), with the texts' logits as offset, that is logistic regression with a Gaussian prior around another
classifier (Chelba & Acero 2006). The prior is as wide as the labels are surprising to the texts: with s the mean
cross-entropy of the texts' logits, as a share of a blind guess's, and n the mean number of labels a class,
τ² = τ₁² · s^(1/√n). So the head departs from good texts with care while labels are few, and goes all the way from bad
ones.

Labels that exclude each other say only how the labelled classes compare among themselves. A class without labels has
no row, works by its text as before, and isn't driven out by labels given before it was there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from clapboard.head import ControlHead, Head
from clapboard.labels import LabelSpace

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Loss = Callable[[Matrix], tuple[float, Matrix]]

_WIDEST = 30.0
"""τ₁². In the mean over sounds and checkpoints of very different kinds, 10 and 100 are within a point of it."""

_LEAST_WORTH = 0.02  # texts that labels speak against still order the classes without labels
_LEAST_SHARE = 1e-3
_LEAST_RADIUS = 1e-3  # clips that all sound alike differ by rounding errors only
_NODES = 3  # of the quadrature, along each axis
_CURVATURE = 0.1  # of a label's cross-entropy by its logit, roughly; it decides the speed alone
_MAX_STEPS = 60
_TOLERANCE = 1e-5  # of the energy, in proportion, when the steps end
_STEP = 1e-4  # of the finite difference that gives a curvature
_MAX_POOL = 20_000  # embeddings that are enough for a mean


@dataclass(frozen=True)
class LabelledEmbeddings:
    """One control's labels."""

    embeddings: Array  # [N, D], each clip's unit-norm mean over its windows
    targets: Array  # [N, L] in {0, 1}; of labels that exclude each other, one is 1
    weights: Array  # [N], how much each counts


def fit_head(label_space: LabelSpace, zero_shot: Head, labelled: Mapping[str, LabelledEmbeddings], pool: Array) -> Head:
    """The head fitted to the labels of each control, by the control's name; one without labels stays as it is.

    `pool` `[P, D]` are the embeddings of the project's clips, labelled or not.
    """
    # In one thread: on matrices as small as these, several wait for each other a hundred times as long as they compute.
    with threadpool_limits(1, "blas"):
        return Head(
            tuple(
                _fit_control(part, labelled[control.name], pool, control.multiple) if control.name in labelled else part
                for control, part in zip(label_space.predicted, zero_shot.controls, strict=True)
            )
        )


def _fit_control(text: ControlHead, labels: LabelledEmbeddings, pool: Array, multiple: bool) -> ControlHead:
    weights = labels.weights.astype(np.float64)[:, None]
    known: Mask = np.asarray((weights * labels.targets).any(axis=0))
    if known.sum() < (1 if multiple else 2):
        return text
    x, y = labels.embeddings.astype(np.float64), labels.targets[:, known].astype(np.float64)
    loss = partial(_independent if multiple else _exclusive, y=y, weights=weights)
    mean, radius = _spread(pool if len(pool) else labels.embeddings)
    rows = text.weights.astype(np.float64)
    texts = x @ rows[known].T
    terms = np.stack(np.broadcast_arrays(texts, -(rows[known] @ mean), 1.0)[: 3 if multiple else 2])  # [K, N, L]

    worth, nuisance, level = _text_factors(terms, loss)
    offset = worth * texts - nuisance * (rows[known] @ mean) + level

    share = loss(offset)[0] / (weights.sum() * (y.shape[1] * np.log(2.0) if multiple else np.log(y.shape[1])))
    labels_a_class = max(1.0, float((weights * y).sum()) / y.shape[1])
    variance = _WIDEST * min(1.0, max(share, _LEAST_SHARE)) ** labels_a_class**-0.5
    features = np.hstack([(x - mean) / radius, np.full((len(x), 1), float(multiple))])  # the last one: a class's level
    own: Matrix = np.zeros((len(rows), features.shape[1]))
    own[known] = _own_rows(features, offset, loss, variance)

    own, own_level = own[:, :-1] / radius, own[:, -1]
    return ControlHead(
        np.zeros_like(text.center),
        (worth * rows + own).astype(np.float32),
        (level - nuisance * (rows @ mean) + own_level - own @ mean).astype(np.float32),
    )


def _spread(pool: Array) -> tuple[Matrix, float]:
    """Mean `[D]` of the embeddings, and the root mean square of their distance from it."""
    sample = pool[:: max(1, len(pool) // _MAX_POOL)].astype(np.float64)
    mean = sample.mean(axis=0)
    return mean, max(float(np.sqrt(np.square(sample - mean).sum(axis=1).mean())), _LEAST_RADIUS)


def _text_factors(terms: Matrix, loss: Loss) -> tuple[float, float, float]:
    """Posterior means of α, β and γ, the factors of the logits' terms `[2 or 3, N, L]`.

    By Gauss-Hermite quadrature around the mode, each node weighed by its posterior: with few labels that is lopsided,
    and its mean a more careful guess than its mode.
    """
    prior = np.eye(len(terms), dtype=np.float64)[0]

    def energy(factors: Matrix) -> tuple[float, Matrix]:
        value, slope = loss(np.einsum("k,knl->nl", factors, terms))
        away = factors - prior
        return value + 0.5 * float(away @ away), np.einsum("knl,nl->k", terms, slope) + away

    mode = minimize(energy, prior, jac=True, method="L-BFGS-B").x
    moves = _STEP * np.eye(len(prior))
    curvature = np.array([energy(mode + move)[1] - energy(mode - move)[1] for move in moves]) / (2.0 * _STEP)
    root = np.linalg.cholesky(np.linalg.inv(0.5 * (curvature + curvature.T)))
    nodes, shares = np.polynomial.hermite_e.hermegauss(_NODES)
    grid = np.array(list(itertools.product(nodes, repeat=len(prior))))
    log_shares = np.log(list(itertools.product(shares, repeat=len(prior)))).sum(axis=1)
    places = mode + grid @ root.T
    log_odds = log_shares + 0.5 * np.square(grid).sum(axis=1) - [energy(place)[0] for place in places]
    odds = np.exp(log_odds - log_odds.max())
    worth, nuisance, *level = (odds @ places / odds.sum()).tolist()
    return max(worth, _LEAST_WORTH), nuisance, sum(level)


def _own_rows(features: Matrix, offset: Matrix, loss: Loss, variance: float) -> Matrix:
    """The most probable rows U `[L, D]` under N(0, variance), from features `[N, D]` and the texts' logits `[N, L]`.

    They are sought as U = V A⁻¹ with A Aᵀ = c ΦᵀΦ + I / variance, roughly their curvature, so that a few steps do.
    """
    gram = _CURVATURE * features.T @ features
    gram[np.diag_indices_from(gram)] += 1.0 / variance
    factor = cholesky(gram, lower=True, check_finite=False)
    basis = solve_triangular(factor, features.T, lower=True, check_finite=False).T  # [N, D]

    def energy(flat: Matrix) -> tuple[float, Matrix]:
        rows = flat.reshape(-1, basis.shape[1])
        own = basis @ rows.T
        value, slope = loss(offset + own)
        value += 0.5 * float(np.square(rows).sum() - _CURVATURE * np.square(own).sum())  # = |U|² / 2 variance
        return value, (rows + (slope - _CURVATURE * own).T @ basis).ravel()

    start = np.zeros(offset.shape[1] * basis.shape[1])
    found = minimize(energy, start, jac=True, method="L-BFGS-B", options={"maxiter": _MAX_STEPS, "ftol": _TOLERANCE})
    rows: Matrix = solve_triangular(factor, found.x.reshape(-1, basis.shape[1]).T, lower=True, trans="T").T
    return rows


def _exclusive(logits: Matrix, y: Matrix, weights: Matrix) -> tuple[float, Matrix]:
    """Cross-entropy of the softmax, and its gradient `[N, L]`."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    total = odds.sum(axis=1, keepdims=True)
    value = weights * y * (np.log(total) - shifted)
    return float(value.sum()), weights * (odds / total * y.sum(axis=1, keepdims=True) - y)


def _independent(logits: Matrix, y: Matrix, weights: Matrix) -> tuple[float, Matrix]:
    """Cross-entropy of the σ, and its gradient `[N, L]`."""
    value = weights * (np.logaddexp(0.0, logits) - y * logits)
    return float(value.sum()), weights * (np.exp(-np.logaddexp(0.0, -logits)) - y)
