"""A head on frames → the probability of each label in each frame.

A head has the form of `ControlHead`: learnt from regions, or made of texts. With a row for each label, each is on its
own: σ of its logit. With one row more, the last is that of everything else, and the labels and it share the frame: the
softmax of all rows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from clapboard.suggest.head import ControlHead
from clapboard.suggest.scoring import Array

_BACKGROUND_BIAS = 1.0  # of the neutral texts' logit, without learnt frames: most moments have none of the labels


class FrameScores(Protocol):
    """What a checkpoint has learnt about frames: the logit scale · cos(x, t) + text_weight · t + bias of text t."""

    @property
    def scale(self) -> float:
        """The factor of the cosine."""

    @property
    def text_weight(self) -> Array:
        """The bias's part that depends on the text, `[D]`."""

    @property
    def bias(self) -> float:
        """The bias that all texts share."""


def frame_probabilities(frames: Array, head: ControlHead, num_labels: int) -> Array:
    """Probabilities `[F, L]` of the labels in each of the frames `[F, D]` (unit-norm rows)."""
    logits = head.logits(frames)
    if logits.shape[1] == num_labels:
        return np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = (odds / odds.sum(axis=1, keepdims=True))[:, :num_labels]
    return shares


def text_frame_head(class_weights: Array, logit_scale: float, frame_scores: FrameScores | None = None) -> ControlHead:
    """The head of the labels' texts: `class_weights` `[L + 1, D]`, of which the last row is that of the neutral texts.

    A checkpoint that has learnt frames has `frame_scores`, by which each label is on its own. Any other compares the
    labels with each other and with the neutral texts.
    """
    center = np.zeros(class_weights.shape[1], np.float32)
    if frame_scores is None:
        biases = np.append(np.zeros(len(class_weights) - 1), _BACKGROUND_BIAS)
        return ControlHead(center, (logit_scale * class_weights).astype(np.float32), biases.astype(np.float32))
    texts = class_weights[:-1]
    biases = texts @ frame_scores.text_weight + frame_scores.bias
    return ControlHead(center, (frame_scores.scale * texts).astype(np.float32), biases.astype(np.float32))


def of_each_frame(window_values: Array, window_s: Array, num_frames: int, frame_s: float) -> Array:
    """The most that windows at `window_s` `[W, 2]` with values `[W, L]` say about each of their frames: `[F, L]`."""
    middles = (np.arange(num_frames) + 0.5) * frame_s
    values = np.zeros((num_frames, window_values.shape[1]), np.float32)
    for row, (start_s, end_s) in zip(window_values, window_s, strict=True):
        inside = (middles >= start_s) & (middles < end_s)
        values[inside] = np.maximum(values[inside], row)
    return values
