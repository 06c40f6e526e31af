"""The symmetric contrastive loss with several right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import log_softmax, normalize

Meaning = Mapping[str, float]
"""The content of a sound or caption: the share of each kind of sound, or a name of its own where it has no kind."""


def affinity(sounds: Sequence[Meaning], captions: Sequence[Meaning]) -> torch.Tensor:
    """How well each caption fits each clip: the cosine of their shares of each kind, `[B, T]` in [0, 1]."""
    columns = {
        kind: column
        for column, kind in enumerate(sorted({kind for meaning in (*sounds, *captions) for kind in meaning}))
    }
    return _unit_shares(sounds, columns) @ _unit_shares(captions, columns).T


def _unit_shares(meanings: Sequence[Meaning], columns: Mapping[str, int]) -> torch.Tensor:
    shares = torch.zeros(len(meanings), len(columns))
    for row, meaning in enumerate(meanings):
        for kind, share in meaning.items():
            shares[row, columns[kind]] = share
    return normalize(shares, dim=-1)


def contrastive_loss(
    audio: torch.Tensor, text: torch.Tensor, fit: torch.Tensor, audio_scale: torch.Tensor, text_scale: torch.Tensor
) -> torch.Tensor:
    """The mean of two cross-entropies, clip → captions and caption → clips.

    Takes unit-norm `[B, D]` and `[T, D]`, and affinities `[B, T]`. The targets are the affinities, normalised over a
    clip's captions and over a caption's clips: two clips of one kind aren't negatives of each other. A caption that
    fits no clip of the batch is only a negative.
    """
    cosines = audio @ text.T  # [B, T]
    return (_cross_entropy(cosines * audio_scale, fit) + _cross_entropy(cosines.T * text_scale, fit.T)) / 2


def _cross_entropy(logits: torch.Tensor, fit: torch.Tensor) -> torch.Tensor:
    total = fit.sum(dim=1, keepdim=True)
    has_target = total[:, 0] > 0
    targets = fit[has_target] / total[has_target]
    return -(targets * log_softmax(logits[has_target], dim=1)).sum(dim=1).mean()
