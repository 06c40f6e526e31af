"""Prompt embeddings → class weights; logits → scores in [0, 1]. Numpy alone, so that the HTTP backend can do it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

RECIPE = "1"
"""Part of every model version; raised by one when the same embeddings would score differently."""

_FIRST: Rows = np.zeros(1, np.intp)


def mean_direction(vectors: Array) -> Array:
    """The unit-norm mean `[D]` of vectors `[N, D]`: prompts → a class's weight, windows → a recording's embedding."""
    mean = vectors.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def mean_directions(recordings: Sequence[Array]) -> Array:
    """The unit-norm means `[N, D]` of recordings' windows `[W, D]`, of which there must be at least one each."""
    starts = np.cumsum([0, *map(len, recordings[:-1])])
    sums = np.add.reduceat(np.concatenate(recordings), starts, axis=0)  # [N, D]
    means: Array = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return means


def exclusive_scores(logits: Array, starts: Rows | None = None) -> Array:
    """Scores that sum to 1, for labels of which exactly one holds: the mean over windows of the logits' softmax.

    Logits `[W, L]` → `[L]` for one recording, or `[N, L]` for N recordings whose windows begin at the ascending
    `starts`. For a single window this is CLIP's zero-shot rule (Radford et al. 2021, arXiv 2103.00020, section 3.1.2).
    """
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    begins = _FIRST if starts is None else starts
    scores: Array = np.add.reduceat(odds, begins, axis=0)
    scores /= np.diff(begins, append=len(logits))[:, None].astype(np.float32)
    return scores[0] if starts is None else scores


def independent_scores(logits: Array, starts: Rows | None = None) -> Array:
    """Scores for labels of which any number may hold: the maximum over windows of the logits' σ.

    Logits `[W, L]` → `[L]` for one recording, or `[N, L]` for N recordings whose windows begin at the ascending
    `starts`.
    """
    sigmas = np.exp(-np.logaddexp(0.0, -logits))  # σ, without overflow for a logit far below 0
    scores: Array = np.maximum.reduceat(sigmas, _FIRST if starts is None else starts, axis=0)
    return scores[0] if starts is None else scores
