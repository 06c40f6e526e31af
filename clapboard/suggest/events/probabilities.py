"""A head on frames → the probability of each label in each frame.

A head has the form of `ControlHead`: learnt from regions, or made of texts. With a row for each label, each is on its
own: σ of its logit. With one row more, the last is that of everything else, and the labels and it share the frame: the
softmax of all rows.
"""

from __future__ import annotations

import numpy as np

from clapboard.suggest.head import ControlHead
from clapboard.suggest.scoring import Array


def frame_probabilities(frames: Array, head: ControlHead, num_labels: int) -> Array:
    """Probabilities `[F, L]` of the labels in each of the frames `[F, D]` (unit-norm rows)."""
    logits = head.logits(frames)
    if logits.shape[1] == num_labels:
        return np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = (odds / odds.sum(axis=1, keepdims=True))[:, :num_labels]
    return shares


def text_frame_head(
    class_weights: Array, logit_scale: float, frame_logits: tuple[float, Array, float] | None = None
) -> ControlHead:
    """The head of the labels' texts: `class_weights` `[L + 1, D]`, of which the last row is that of the neutral texts.

    For a checkpoint that has learnt frames, `frame_logits` are its scale, text weight `[D]` and bias; the logit of text
    t in frame x is then scale · cos(x, t) + text weight · t + bias. Any other compares the labels with each other and
    with the neutral texts.
    """
    center = np.zeros(class_weights.shape[1], np.float32)
    if frame_logits is None:
        return ControlHead(
            center, (logit_scale * class_weights).astype(np.float32), np.zeros(len(class_weights), np.float32)
        )
    scale, text_weight, bias = frame_logits
    texts = class_weights[:-1]
    return ControlHead(center, (scale * texts).astype(np.float32), (texts @ text_weight + bias).astype(np.float32))


def of_each_frame(window_values: Array, window_s: Array, num_frames: int, frame_s: float) -> Array:
    """The most that windows at `window_s` `[W, 2]` with values `[W, L]` say about each of their frames: `[F, L]`."""
    middles = (np.arange(num_frames) + 0.5) * frame_s
    values = np.zeros((num_frames, window_values.shape[1]), np.float32)
    for row, (start_s, end_s) in zip(window_values, window_s, strict=True):
        inside = (middles >= start_s) & (middles < end_s)
        values[inside] = np.maximum(values[inside], row)
    return values
