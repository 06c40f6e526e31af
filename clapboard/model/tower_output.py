"""What an audio tower computes in a pass: a vector for each window, and one for each of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class TowerOutput:
    """Pooled vectors `[B, C]` and frames `[B, T, C]` in the order of time, float32, as a projection takes both."""

    pooled: torch.Tensor
    frames: torch.Tensor

    @classmethod
    def joined(cls, outputs: Sequence[Self]) -> Self:
        """The outputs one after the other, as that of a single batch."""
        return cls(torch.cat([each.pooled for each in outputs]), torch.cat([each.frames for each in outputs]))
