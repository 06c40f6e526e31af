"""Fits a head to a few labels: logistic regression around the zero-shot head, which it trusts as far as labels confirm.

With f(x) the zero-shot logits, m the mean of all the project's embeddings, and φ(x) = (x − m) / r with r the root mean
square of |x − m|, the fitted logits of a control are

    z(x) = α·f(x) − β·f(m) + γ + U φ(x).

It is fitted in two steps:

1. The text factors α, β and γ, three numbers for all classes together, so that even one label a class says much about
   them. α scales the zero-shot logits, β subtracts those of the mean clip (α = β is centred zero-shot), and γ is a bias
   that all classes share, which matters only where labels don't exclude each other. They are the posterior mean under
   U = 0 and the priors α ~ N(1, 1), β ~ N(0, 1), γ ~ N(0, 1), centred on zero-shot.
2. The class rows U, which learn what the texts don't explain. They are the posterior mode under U ~ N(0, τ²), with the
   logits of step 1 as offset: logistic regression with a Gaussian prior centred on another classifier (Chelba & Acero,
   “Adaptation of Maximum Entropy Capitalizer”, 2006). The worse the texts predict the labels, the wider the prior:
   τ² = τ₁² · s^(1/√n), our own rule, where s is the mean cross-entropy of the offset relative to that of uniform
   guessing, and n the mean number of labels a class. So good texts are kept while labels are few, and bad ones are
   overruled even then.

Labels that exclude each other only compare the labelled classes among themselves. A class without labels has no row in
U: it keeps working from its text, and labels given before it was added don't push it down.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from clapboard.labels.label_space import LabelSpace
from clapboard.suggest.head import ControlHead, Head

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Loss = Callable[[Matrix], tuple[float, Matrix]]
"""Logits `[N, C]` of the labelled classes → their summed, weighted cross-entropy and its gradient `[N, C]`."""

_WIDEST_VARIANCE = 30.0
"""τ₁². Averaged over very different sounds and checkpoints, 10 and 100 are within one point of accuracy of it."""

_MIN_SCALE = 0.02  # of α: texts that the labels contradict still order the classes without labels
_MIN_RELATIVE_LOSS = 1e-3
_MIN_RADIUS = 1e-3  # clips that all sound alike differ by rounding errors only
_QUADRATURE_NODES = 3  # along each axis
_CURVATURE = 0.1  # roughly, of a label's cross-entropy by its logit; it affects the speed alone
_MAX_STEPS = 60
_TOLERANCE = 1e-5  # relative decrease of the objective at which the steps end
_DIFFERENCE_STEP = 1e-4  # of the finite differences that give a curvature
_MAX_POOL = 20_000  # embeddings that are enough for a mean


@dataclass(frozen=True)
class LabelledEmbeddings:
    """The labelled clips of one control."""

    embeddings: Array  # [N, D], each clip's unit-norm mean over its windows
    targets: Array  # [N, L] in {0, 1}; exactly one is 1 where labels exclude each other
    weights: Array  # [N], how much each clip counts; [N, L] if that depends on the label, which mustn't be exclusive


class _TextFactors(NamedTuple):
    """α, β and γ of the module's formula."""

    scale: float
    centring: float
    bias: float

    def logits(self, text_logits: Matrix, mean_logits: Matrix) -> Matrix:
        """α·f(x) − β·f(m) + γ, `[N, C]`, from f(x) `[N, C]` and f(m) `[C]`."""
        return self.scale * text_logits - self.centring * mean_logits + self.bias


def fit_head(label_space: LabelSpace, zero_shot: Head, labelled: Mapping[str, LabelledEmbeddings], pool: Array) -> Head:
    """Returns the zero-shot head with each control fitted to its labelled clips, which are given by control name.

    A control without labels, or with exclusive labels of one class only, keeps its zero-shot head. `pool` `[P, D]` are
    the embeddings of all clips of the project, labelled or not.
    """
    # In one thread: on matrices this small, threads spend a hundred times as long on waiting for each other.
    with threadpool_limits(1, "blas"):
        return Head(
            tuple(
                fit_control(part, labelled[control.name], pool, multiple=control.multiple)
                if control.name in labelled
                else part
                for control, part in zip(label_space.predicted, zero_shot.controls, strict=True)
            )
        )


def fit_control(zero_shot: ControlHead, labelled: LabelledEmbeddings, pool: Array, *, multiple: bool) -> ControlHead:
    """The control's fitted head, by the two steps of the module's docstring."""
    clip_weights = labelled.weights.astype(np.float64)
    if clip_weights.ndim == 1:
        clip_weights = clip_weights[:, None]
    has_labels: Mask = np.asarray((clip_weights * labelled.targets).any(axis=0))  # [L], of which C are true
    if has_labels.sum() < (1 if multiple else 2):
        return zero_shot
    targets = labelled.targets[:, has_labels].astype(np.float64)  # [N, C]
    if clip_weights.shape[1] > 1:
        clip_weights = clip_weights[:, has_labels]
    loss = partial(_independent_loss if multiple else _exclusive_loss, targets=targets, clip_weights=clip_weights)
    embeddings = labelled.embeddings.astype(np.float64)
    text_rows = zero_shot.weights.astype(np.float64)  # [L, D]
    mean, radius = _mean_and_radius(pool if len(pool) else labelled.embeddings)

    text_logits, mean_logits = embeddings @ text_rows[has_labels].T, text_rows[has_labels] @ mean
    factors = _fit_text_factors(text_logits, mean_logits, loss, with_bias=multiple)
    offset = factors.logits(text_logits, mean_logits)

    variance = _prior_variance(loss(offset)[0], targets, clip_weights, multiple)
    bias_feature = np.full((len(embeddings), 1), float(multiple))  # the last column of U: each class's bias
    features = np.hstack([(embeddings - mean) / radius, bias_feature]).astype(np.float32)
    class_rows: Matrix = np.zeros((len(text_rows), features.shape[1]))  # U [L, D + 1]; zero for classes without labels
    class_rows[has_labels] = _fit_class_rows(features, offset, loss, variance)

    return _linear_head(text_rows, factors, class_rows[:, :-1] / radius, class_rows[:, -1], mean)


def _mean_and_radius(pool: Array) -> tuple[Matrix, float]:
    """The mean `[D]` of the embeddings, and the root mean square of their distances from it."""
    sample = pool[:: max(1, len(pool) // _MAX_POOL)].astype(np.float64)
    mean = sample.mean(axis=0)
    return mean, max(float(np.sqrt(np.square(sample - mean).sum(axis=1).mean())), _MIN_RADIUS)


def _prior_variance(text_loss: float, targets: Matrix, clip_weights: Matrix, multiple: bool) -> float:
    """τ² = τ₁² · s^(1/√n) of the module's docstring, from the summed loss of the texts' logits."""
    num_classes = targets.shape[1]
    num_answers = clip_weights.sum() * (num_classes / clip_weights.shape[1])
    uniform_loss = num_answers * np.log(2.0) if multiple else clip_weights.sum() * np.log(num_classes)
    relative_loss = min(1.0, max(text_loss / uniform_loss, _MIN_RELATIVE_LOSS))
    labels_per_class = max(1.0, float((clip_weights * targets).sum()) / num_classes)
    variance: float = _WIDEST_VARIANCE * relative_loss**labels_per_class**-0.5
    return variance


def _linear_head(
    text_rows: Matrix, factors: _TextFactors, class_rows: Matrix, class_biases: Matrix, mean: Matrix
) -> ControlHead:
    """The formula's z(x) as one linear head: weights `[L, D]`, biases `[L]`, and no centre."""
    weights = factors.scale * text_rows + class_rows
    biases = factors.bias - factors.centring * (text_rows @ mean) + class_biases - class_rows @ mean
    return ControlHead(np.zeros(len(mean), np.float32), weights.astype(np.float32), biases.astype(np.float32))


# Step 1: the text factors


def _fit_text_factors(text_logits: Matrix, mean_logits: Matrix, loss: Loss, *, with_bias: bool) -> _TextFactors:
    """The posterior mean of α, β and, if wanted, γ.

    It is computed by Gauss–Hermite quadrature around the posterior mode (Naylor & Smith 1982): with few labels the
    posterior is skewed, and its mean a more careful estimate than its mode.
    """
    num_factors = 3 if with_bias else 2
    terms = np.stack(np.broadcast_arrays(text_logits, -mean_logits, 1.0)[:num_factors])  # [K, N, C]
    prior_mean = np.eye(num_factors, dtype=np.float64)[0]

    def negative_log_posterior(factors: Matrix) -> tuple[float, Matrix]:
        value, gradient = loss(np.einsum("k,knl->nl", factors, terms))
        deviation = factors - prior_mean
        return value + 0.5 * float(deviation @ deviation), np.einsum("knl,nl->k", terms, gradient) + deviation

    scale, centring, *bias = _posterior_mean(negative_log_posterior, prior_mean).tolist()
    return _TextFactors(max(scale, _MIN_SCALE), centring, sum(bias))


def _posterior_mean(negative_log_posterior: Loss, start: Matrix) -> Matrix:
    """The mean `[K]` of the density whose negative logarithm and gradient are given, by quadrature around its mode."""
    mode = minimize(negative_log_posterior, start, jac=True, method="L-BFGS-B").x
    covariance_root = np.linalg.cholesky(np.linalg.inv(_hessian(negative_log_posterior, mode)))
    axis_nodes, axis_weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
    nodes = np.array(list(itertools.product(axis_nodes, repeat=len(start))))  # [nodes, K], in units of the covariance
    log_weights = np.log(list(itertools.product(axis_weights, repeat=len(start)))).sum(axis=1)
    points = mode + nodes @ covariance_root.T
    energies = [negative_log_posterior(point)[0] for point in points]
    # The rule's weights are for the normal density: divided by that, they are for the posterior.
    log_masses = log_weights + 0.5 * np.square(nodes).sum(axis=1) - energies
    masses = np.exp(log_masses - log_masses.max())
    mean: Matrix = masses @ points / masses.sum()
    return mean


def _hessian(function: Loss, point: Matrix) -> Matrix:
    """The function's second derivatives `[K, K]` at the point, by central differences of its gradient."""
    steps = _DIFFERENCE_STEP * np.eye(len(point))
    differences = [function(point + step)[1] - function(point - step)[1] for step in steps]
    hessian = np.array(differences) / (2.0 * _DIFFERENCE_STEP)
    symmetric: Matrix = 0.5 * (hessian + hessian.T)
    return symmetric


# Step 2: the class rows


def _fit_class_rows(features: Array, offset: Matrix, loss: Loss, variance: float) -> Matrix:
    """The posterior mode of U `[C, D]` under N(0, variance), from features `[N, D]` and the offset's logits `[N, C]`.

    It is sought as U = V A⁻¹ with A Aᵀ = c ΦᵀΦ + I / variance. That is roughly the objective's curvature, so that a few
    steps are enough. The products with Φ, nearly all of the work, are in single precision.
    """
    gram = _CURVATURE * (features.T @ features).astype(np.float64)
    gram[np.diag_indices_from(gram)] += 1.0 / variance
    inverse = solve_triangular(cholesky(gram, lower=True, check_finite=False), np.eye(len(gram)), lower=True)  # A⁻¹

    def negative_log_posterior(flat_rows: Matrix) -> tuple[float, Matrix]:
        rows = flat_rows.reshape(-1, len(inverse)) @ inverse  # U
        value, gradient = loss(offset + features @ rows.T.astype(np.float32))
        value += 0.5 * float(np.square(rows).sum()) / variance
        return value, ((gradient.T.astype(np.float32) @ features + rows / variance) @ inverse.T).ravel()

    start = np.zeros(offset.shape[1] * len(inverse))
    options = {"maxiter": _MAX_STEPS, "ftol": _TOLERANCE}
    mode = minimize(negative_log_posterior, start, jac=True, method="L-BFGS-B", options=options).x
    class_rows: Matrix = mode.reshape(-1, len(inverse)) @ inverse
    return class_rows


# The losses


def _exclusive_loss(logits: Matrix, targets: Matrix, clip_weights: Matrix) -> tuple[float, Matrix]:
    """Cross-entropy of the softmax, and its gradient `[N, C]`."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    losses = clip_weights * targets * (np.log(total) - shifted)
    return float(losses.sum()), clip_weights * (exponentials / total * targets.sum(axis=1, keepdims=True) - targets)


def _independent_loss(logits: Matrix, targets: Matrix, clip_weights: Matrix) -> tuple[float, Matrix]:
    """Cross-entropy of each logit's sigmoid, and its gradient `[N, C]`."""
    losses = clip_weights * (np.logaddexp(0.0, logits) - targets * logits)
    return float(losses.sum()), clip_weights * (np.exp(-np.logaddexp(0.0, -logits)) - targets)
