"""The frame loss: in which frames of a mixture each text's sound is heard.

FLAM's idea (Wu et al. 2025, arXiv 2505.05335): a frame and a text are scored by σ(scale · cos + bias(text)), by binary
cross-entropy over sounds at known times. Here the bias is linear in the text's embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clapboard.model.frame_scores import FrameScores
from training.pretraining.loss import Meaning, affinity
from training.pretraining.mixtures import Mixture, coverage

_START_SCALE, _START_BIAS = 10.0, -4.0
_PACE = 20.0
"""How much faster the scores learn than the model: they are few, and start far from where they end."""

_WHOLE_FIT = 0.99


class FrameScorer(nn.Module):
    """What is learnt for frames beside the model: `FrameScores` in training.

    `unheard_bias` is added to the bias when it is published, since sounds never heard before score lower.
    """

    unheard_bias = 0.0

    def __init__(self, dim: int, start: FrameScores | None = None) -> None:
        super().__init__()
        scale, bias = (start.scale, start.bias) if start else (_START_SCALE, _START_BIAS)
        weight = torch.from_numpy(np.array(start.text_weight)) if start else torch.zeros(dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(max(scale, 1e-3)) / _PACE))
        self.text_weight = nn.Parameter(weight / _PACE)
        self.bias = nn.Parameter(torch.tensor(bias / _PACE))

    def forward(self, frames: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Logits `[B, T, N]` of unit-norm frames `[B, T, D]` and texts `[N, D]`."""
        return (_PACE * self.log_scale).exp() * (frames @ texts.T) + _PACE * (texts @ self.text_weight + self.bias)

    def frame_scores(self) -> FrameScores:
        """The scores to publish."""
        values = (_PACE * value.detach().float().cpu() for value in (self.log_scale, self.text_weight, self.bias))
        log_scale, weight, bias = values
        return FrameScores(float(log_scale.exp()), weight.numpy(), float(bias) + self.unheard_bias)


def frame_targets(
    mixtures: Sequence[Mixture], texts: Sequence[Meaning], num_frames: int, frame_s: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """How much of each frame each text's sound covers, `[B, T, N]` in [0, 1], and whether that is known, 0 or 1.

    A frame at an event's edge counts for its text by the share that is covered, and against it by the rest. A text
    that fits an event only partly («dog and rain», or «dog», for a sound with both tags) may be heard in it or not:
    it isn't scored there.
    """
    targets = torch.zeros(len(mixtures), num_frames, len(texts))
    known = torch.ones_like(targets)
    for row, mixture in enumerate(mixtures):
        covered = torch.from_numpy(coverage(mixture.events, num_frames, frame_s))  # [E, T]
        fit = affinity([event.meaning for event in mixture.events], texts)  # [E, N]
        for event_covered, event_fit in zip(covered, fit, strict=True):
            whole = (event_fit >= _WHOLE_FIT).float()
            targets[row] = torch.maximum(targets[row], event_covered[:, None] * whole)
            is_partly = (event_fit > 0) & (event_fit < _WHOLE_FIT)
            known[row] *= 1 - ((event_covered > 0)[:, None] & is_partly).float()
        if mixture.unknown:
            known[row] *= (affinity([mixture.unknown], texts)[0] == 0).float()
    return targets, known


def frame_loss(logits: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of `[B, T, N]`, summed over the texts and averaged over the frames."""
    losses = binary_cross_entropy_with_logits(logits, targets, known, reduction="sum")
    return losses / (logits.shape[0] * logits.shape[1])
