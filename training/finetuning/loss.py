"""The loss of labels."""

from __future__ import annotations

import torch
from torch.nn.functional import log_softmax, logsigmoid


def label_loss(logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, *, multiple: bool) -> torch.Tensor:
    """The summed cross-entropy of a batch: of the softmax, or the mean of each label's; unknown parts weigh nothing.

    `truth` `[B, L]` and `known` `[B, 1]` may be shares, as mixup makes them; truth is 0 where nothing is known.
    """
    if multiple:
        return -(truth * logsigmoid(logits) + (known - truth) * logsigmoid(-logits)).mean(dim=1).sum()
    return -(truth * log_softmax(logits, dim=1)).sum()
