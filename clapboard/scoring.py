"""Embeddings × class weights → scores in [0, 1]. numpy alone, so that the HTTP backend can do it too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

RECIPE = "1"
"""Part of every model version: counted up when the same embeddings would score differently."""


def class_weight(prompt_embeddings: Array) -> Array:
    """One class's weight `[D]` from the embeddings `[P, D]` of its prompts: their mean direction, unit norm."""
    mean = prompt_embeddings.mean(axis=0)
    return mean / np.linalg.norm(mean)


def exclusive_scores(embeddings: Array, class_weights: Array, logit_scale: float) -> Array:
    """Scores `[L]` that sum to 1, for labels of which one holds: the mean of the windows' softmax.

    `[W, D]` × `[L, D]`; CLAP's zero-shot rule for a single window (Radford et al. 2021, section 3.1.4).
    """
    logits = logit_scale * (embeddings @ class_weights.T)  # [W, L]
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)


def independent_scores(embeddings: Array, class_weights: Array, negative: Array, logit_scale: float) -> Array:
    """Scores `[L]`, each for itself, for labels of which any number holds: the highest of the windows.

    Each label is weighed against the neutral prompts' weight `negative` `[D]`: σ(scale·(cos label − cos negative)).
    """
    margins = logit_scale * (embeddings @ class_weights.T - (embeddings @ negative)[:, None])  # [W, L]
    return np.exp(-np.logaddexp(0.0, -margins)).max(axis=0)  # σ, without an overflow where a margin is far below 0
