"""The simple rule: an event begins where the score rises above a threshold, and lasts while it stays near it."""

from __future__ import annotations

import numpy as np

from clapboard.suggest.scoring import Array

_STAYS = 0.7  # of the threshold


def hysteresis_spans(
    scores: Array, frame_s: float, duration_s: float, threshold: float, stays: float = _STAYS
) -> list[tuple[float, float]]:
    """Start and end in seconds of each run of frames `[F]` that reaches the threshold and stays above part of it.

    Edges lie between frames: where the line through the two frames' middles crosses the lower threshold.
    """
    low = threshold * stays
    above = scores >= low
    change = np.diff(above.astype(np.int8), prepend=0, append=0)
    spans = []
    for first, last in zip(np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist(), strict=True):
        if scores[first:last].max() < threshold:
            continue
        start_s = 0.0 if first == 0 else _crossing(scores, first - 1, low, frame_s)
        end_s = duration_s if last == len(scores) else min(_crossing(scores, last - 1, low, frame_s), duration_s)
        if end_s > start_s:
            spans.append((start_s, end_s))
    return spans


def _crossing(scores: Array, frame: int, level: float, frame_s: float) -> float:
    """Where the scores cross the level between the middles of this frame and the next, in seconds."""
    before, after = float(scores[frame]), float(scores[frame + 1])
    return (frame + 0.5 + (level - before) / (after - before)) * frame_s
