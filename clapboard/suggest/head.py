"""Heads: they turn embeddings into scores. Numpy alone, so that the HTTP backend can do it too.

A head is linear in centred, unit-norm embeddings. The zero-shot head's weights are the embeddings of the labels' texts;
a head fitted to accepted labels (`training.fit_head`) has the same form, so both are served alike.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from clapboard.suggest import scoring
from clapboard.suggest.scoring import Array

if TYPE_CHECKING:
    from clapboard.labels.label_space import Control, LabelSpace

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True, eq=False)
class ControlHead:
    """The head of one control: `logits(x) = unit(x − center) · weights + bias`."""

    center: Array  # [D]
    weights: Array  # [L, D]
    bias: Array  # [L]

    def logits(self, embeddings: Array) -> Array:
        """Logits `[W, L]` of unit-norm embeddings `[W, D]`."""
        centred = embeddings - self.center
        centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        # Not BLAS's matrix product: its last digits depend on how many windows are scored together.
        return np.einsum("wd,ld->wl", centred, self.weights) + self.bias


@dataclass(frozen=True, eq=False)
class FrameHead:
    """The head of a control about regions: it scores frames, or the mean of those of a region.

    `limits` `[L, 3]` are what accepted regions taught about each label's regions, in seconds: the shortest, the longest
    and the gap within one; NaN where they taught nothing.
    """

    control: ControlHead
    limits: Array


@dataclass(frozen=True, eq=False)
class Head:
    """A `ControlHead` for each predicted control of a label space, in its order; then those of its `on_frames`.

    A head that was made before a label space had controls about regions, or that learns of clips only, has none.
    """

    controls: tuple[ControlHead, ...]
    frame_controls: tuple[FrameHead, ...] = ()

    @cached_property
    def name(self) -> str:
        """`head-` and 8 hex digits over all of its numbers: equal heads have equal names."""
        return f"head-{hashlib.sha256(self.to_bytes()).hexdigest()[:8]}"

    def to_bytes(self) -> bytes:
        """The head as the store keeps it."""
        arrays = {
            f"{field}{index}": np.ascontiguousarray(getattr(part, field), "<f4")
            for index, part in enumerate(self.controls)
            for field in ("center", "weights", "bias")
        }
        for index, on_frames in enumerate(self.frame_controls):
            for field in ("center", "weights", "bias"):
                arrays[f"frame_{field}{index}"] = np.ascontiguousarray(getattr(on_frames.control, field), "<f4")
            arrays[f"frame_limits{index}"] = np.ascontiguousarray(on_frames.limits, "<f4")
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy allows for names of its own arguments
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The head that `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:

            def control_head(prefix: str, index: int) -> ControlHead:
                return ControlHead(*(arrays[f"{prefix}{field}{index}"] for field in ("center", "weights", "bias")))

            num_controls, num_on_frames = (
                sum(name.startswith(first) for name in arrays.files) for first in ("center", "frame_center")
            )
            return cls(
                tuple(control_head("", index) for index in range(num_controls)),
                tuple(
                    FrameHead(control_head("frame_", index), arrays[f"frame_limits{index}"])
                    for index in range(num_on_frames)
                ),
            )


def zero_shot_head(label_space: LabelSpace, class_weights: Array, logit_scale: float) -> Head:
    """The head made of the labels' texts: of class weights `[L + 1, D]`, whose last row is that of the neutral texts.

    Labels of a control with several choices are scored against the neutral texts: scale · (cos label − cos neutral).
    """
    negative = class_weights[-1]
    parts, start = [], 0
    for control in label_space.predicted:
        rows = class_weights[start : start + len(control.labels)]
        start += len(control.labels)
        weights = logit_scale * (rows - negative if control.multiple else rows)
        parts.append(ControlHead(np.zeros_like(negative), weights.astype(np.float32), np.zeros(len(rows), np.float32)))
    return Head(tuple(parts))


def control_scores(control: Control, head: ControlHead, embeddings: Array) -> Array:
    """Scores `[L]` in [0, 1] of the control's labels for a recording's windows `[W, D]`."""
    return scores_of_all(control, head, [embeddings])[0]


def scores_of_all(control: Control, head: ControlHead, recordings: Sequence[Array]) -> Array:
    """Scores `[N, L]` in [0, 1] of the control's labels for each recording's windows `[W, D]`.

    A recording's scores don't depend on the others, to the bit.
    """
    windows = np.concatenate(recordings)  # [ΣW, D]
    starts = np.cumsum([0, *map(len, recordings[:-1])])
    logits = head.logits(windows)  # [ΣW, L]
    score = scoring.independent_scores if control.multiple else scoring.exclusive_scores
    return score(logits, starts)
