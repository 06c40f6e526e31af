"""Fits a head to the frames of reviewed recordings: logistic regression of each label around the zero-shot head.

Frames inside accepted regions are positives of their label. The rest of a reviewed recording are weak negatives: people
overlook quiet sounds, and a region's edges are never exact. So the frames at edges count less, and those of a region
that annotators disagree about don't count at all. Neighbouring frames tell nearly the same, so a long region counts as
a few frames, however many it has. The regression itself is that of `fit_head`, see there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from clapboard.suggest.head import ControlHead
from clapboard.suggest.scoring import Array, Rows
from training.fit_head import LabelledEmbeddings, fit_control

NEGATIVE_WEIGHT = 0.1
"""How much a frame without a region counts."""

EDGE_WEIGHT = 0.25
"""How much a frame that a region covers in part counts."""

REGION_WEIGHT = 1.0
"""How much a region's frames count together at most."""

MAX_FRAMES = 3_000
"""How many frames a fit may have: more take longer than 0.5 s."""

_SHORTEST_SHARE, _LONGEST_SHARE = 0.5, 2.0  # of the shortest and longest accepted regions, so that others have room
_LEAST_REGIONS = 8  # fewer say little about lengths


@dataclass(frozen=True)
class LabelledSpan:
    """A region of a label, by its place in the head, in seconds."""

    label: int
    start_s: float
    end_s: float


def frame_targets(
    spans: Sequence[LabelledSpan],
    num_frames: int,
    frame_s: float,
    num_labels: int,
    unsettled: Sequence[LabelledSpan] = (),
) -> tuple[Array, Array]:
    """Targets `[F, L]` in {0, 1} and weights `[F, L]` of a reviewed recording's frames."""
    targets = np.zeros((num_frames, num_labels), np.float32)
    weights = np.full((num_frames, num_labels), NEGATIVE_WEIGHT, np.float32)
    for span in spans:
        covered = _covered(span, num_frames, frame_s)
        inside = covered >= 0.5
        if not inside.any():  # shorter than a frame: the one in which most of it lies
            inside = np.zeros(num_frames, bool)
            inside[int(covered.argmax())] = bool(covered.any())
        each = min(1.0, REGION_WEIGHT / max(1, int(inside.sum())))
        targets[inside, span.label] = 1.0
        weights[inside, span.label] = each
        at_edge = (covered > 0) & (covered < 1)
        weights[at_edge, span.label] *= EDGE_WEIGHT
    for span in unsettled:
        touched = (_covered(span, num_frames, frame_s) > 0) & (targets[:, span.label] == 0)
        weights[touched, span.label] = 0.0
    return targets, weights


def fit_frame_head(zero_shot: ControlHead, frames: Array, targets: Array, weights: Array, pool: Array) -> ControlHead:
    """The zero-shot head fitted to frames `[N, D]` with targets and weights `[N, L]`; each label is on its own.

    `zero_shot` has a row for each label, or one more for everything else; the fitted one has L rows. `pool` `[P, D]`
    are frames of the whole project, labelled or not. A label without positives keeps its zero-shot row.
    """
    text = independent(zero_shot, targets.shape[1])
    has_bias = np.ones((len(frames), 1), np.float32)
    # The bias of each text becomes the weight of a last feature that is always 1.
    extended = ControlHead(
        np.append(text.center, 0.0).astype(np.float32),
        np.column_stack([text.weights, text.bias]).astype(np.float32),
        np.zeros(len(text.bias), np.float32),
    )
    labelled = LabelledEmbeddings(np.hstack([frames, has_bias]), targets, weights)
    with threadpool_limits(1, "blas"):
        fitted = fit_control(extended, labelled, np.hstack([pool, np.ones((len(pool), 1), np.float32)]), multiple=True)
    return ControlHead(
        np.zeros(frames.shape[1], np.float32),
        np.ascontiguousarray(fitted.weights[:, :-1]),
        (fitted.bias + fitted.weights[:, -1]).astype(np.float32),
    )


def independent(head: ControlHead, num_labels: int) -> ControlHead:
    """The head with a row for each label alone: what is left of everything else is subtracted."""
    if len(head.weights) == num_labels:
        return head
    rows = (head.weights[:-1] - head.weights[-1:]).astype(np.float32)
    return ControlHead(head.center, rows, (head.bias[:-1] - head.bias[-1:]).astype(np.float32))


def drawn_frames(targets: Array, weights: Array, limit: int = MAX_FRAMES) -> tuple[Rows, Array]:
    """The rows `[n]` of at most `limit` frames to fit to, and the weights `[n, L]` that make up for the others.

    All frames of regions are drawn first, evenly if there are too many; then every so many of the others.
    """
    positive = np.flatnonzero(targets.any(axis=1))
    negative = np.flatnonzero(~targets.any(axis=1))
    kept_positive = _evenly(positive, limit * 3 // 4 if len(negative) else limit)
    kept_negative = _evenly(negative, limit - len(kept_positive))
    more = np.concatenate(
        [
            np.full(len(kept), len(all_) / max(1, len(kept)), np.float32)
            for kept, all_ in ((kept_positive, positive), (kept_negative, negative))
        ]
    )
    rows = np.concatenate([kept_positive, kept_negative])
    return rows, weights[rows] * more[:, None]


def learnt_limits(spans: Sequence[LabelledSpan], num_labels: int) -> Array:
    """What regions teach about their labels' lengths: `[L, 3]`, the shortest and longest to suggest, and NaN.

    In seconds; NaN for labels with few regions. Gaps aren't learnt: annotators' habits differ more than sounds do.
    """
    limits = np.full((num_labels, 3), np.nan, np.float32)
    for label in range(num_labels):
        lengths = [span.end_s - span.start_s for span in spans if span.label == label]
        if len(lengths) >= _LEAST_REGIONS:
            shortest, longest = np.quantile(lengths, [0.05, 0.95])
            limits[label, :2] = _SHORTEST_SHARE * shortest, _LONGEST_SHARE * longest
    return limits


def _covered(span: LabelledSpan, num_frames: int, frame_s: float) -> Array:
    """Which share of each frame the span covers: `[F]`."""
    starts = np.arange(num_frames) * frame_s
    shared = np.minimum(span.end_s, starts + frame_s) - np.maximum(span.start_s, starts)
    return np.clip(shared / frame_s, 0.0, 1.0).astype(np.float32)


def _evenly(rows: Rows, limit: int) -> Rows:
    if len(rows) <= limit:
        return rows
    return rows[np.floor(np.arange(max(0, limit)) * (len(rows) / max(1, limit))).astype(int)]
