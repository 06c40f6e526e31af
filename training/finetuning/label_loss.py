"""The loss that finetuning minimises."""

from __future__ import annotations

import torch
from torch.nn.functional import log_softmax, logsigmoid


def label_loss(logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, *, multiple: bool) -> torch.Tensor:
    """The cross-entropy of logits `[B, L]`, summed over clips: the softmax's, or the mean of the labels' sigmoids.

    `truth` `[B, L]` and `known` `[B, 1]` may be fractions, as mixup gives them. Where nothing is known, `truth` is 0
    and the clip adds nothing.
    """
    if multiple:
        return -(truth * logsigmoid(logits) + (known - truth) * logsigmoid(-logits)).mean(dim=1).sum()
    return -(truth * log_softmax(logits, dim=1)).sum()
