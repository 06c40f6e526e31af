"""The symmetric contrastive loss, aware of several right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import log_softmax, normalize

Meaning = Mapping[str, float]
"""What is heard, or said: the share of each kind of sound; of what has no kind, the caption or the clip's own name."""


def affinity(sounds: Sequence[Meaning], captions: Sequence[Meaning]) -> torch.Tensor:
    """How well each caption fits each clip, `[B, T]` in [0, 1]: the cosine of what they share of each kind."""
    columns = {
        kind: column for column, kind in enumerate(sorted({kind for one in (*sounds, *captions) for kind in one}))
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
    """Mean cross-entropy of clip → captions and caption → clips; unit-norm `[B, D]`, `[T, D]`, affinities `[B, T]`.

    The target is the affinity, normalised over a clip's captions and over a caption's clips: two clips of one kind
    are no negatives of each other. A caption that fits no clip of the batch takes part as a negative alone.
    """
    cosines = audio @ text.T  # [B, T]
    return (_cross_entropy(cosines * audio_scale, fit) + _cross_entropy(cosines.T * text_scale, fit.T)) / 2


def _cross_entropy(logits: torch.Tensor, fit: torch.Tensor) -> torch.Tensor:
    total = fit.sum(dim=1, keepdim=True)
    answered = total[:, 0] > 0
    targets = fit[answered] / total[answered]
    return -(targets * log_softmax(logits[answered], dim=1)).sum(dim=1).mean()
