"""Prompt embeddings → class weights, and logits → scores in [0, 1]. numpy alone, so that the HTTP backend can do it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

RECIPE = "1"
"""Part of every model version: counted up when the same embeddings would score differently."""


_FIRST: Rows = np.zeros(1, np.intp)


def mean_direction(vectors: Array) -> Array:
    """The unit-norm mean `[D]` of `[N, D]`: a class's weight of prompts, a recording's embedding of windows."""
    mean = vectors.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def exclusive_scores(logits: Array, starts: Rows | None = None) -> Array:
    """Scores that sum to 1, for labels of which one holds: the mean of the windows' softmax, from `[W, L]`.

    `[L]` of one recording; or `[N, L]` of N, whose windows begin at the ascending `starts`. For a single window it is
    CLAP's zero-shot rule (Radford et al. 2021, section 3.1.4).
    """
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    begins = _FIRST if starts is None else starts
    scores: Array = np.add.reduceat(odds, begins, axis=0)
    scores /= np.diff(begins, append=len(logits))[:, None].astype(np.float32)
    return scores[0] if starts is None else scores


def independent_scores(logits: Array, starts: Rows | None = None) -> Array:
    """Scores each for itself, for labels of which any number holds: the highest σ of the windows `[W, L]`.

    `[L]` of one recording; or `[N, L]` of N, whose windows begin at the ascending `starts`.
    """
    sigmas = np.exp(-np.logaddexp(0.0, -logits))  # σ, without an overflow where a logit is far below 0
    scores: Array = np.maximum.reduceat(sigmas, _FIRST if starts is None else starts, axis=0)
    return scores[0] if starts is None else scores
