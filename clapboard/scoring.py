"""Prompt embeddings → class weights, and logits → scores in [0, 1]. numpy alone, so that the HTTP backend can do it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

RECIPE = "1"
"""Part of every model version: counted up when the same embeddings would score differently."""


def mean_direction(vectors: Array) -> Array:
    """The unit-norm mean `[D]` of `[N, D]`: a class's weight of prompts, a recording's embedding of windows."""
    mean = vectors.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def exclusive_scores(logits: Array) -> Array:
    """Scores `[L]` that sum to 1, for labels of which one holds: the mean of the windows' softmax, from `[W, L]`.

    For a single window it is CLAP's zero-shot rule (Radford et al. 2021, section 3.1.4).
    """
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)


def independent_scores(logits: Array) -> Array:
    """Scores `[L]`, each for itself, for labels of which any number holds: the highest σ of the windows `[W, L]`."""
    return np.exp(-np.logaddexp(0.0, -logits)).max(axis=0)  # σ, without an overflow where a logit is far below 0
