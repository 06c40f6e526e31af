"""PANN-14 (Kong et al. 2020, arXiv 1912.10211, «CNN14»): log-mel → one vector a window.

Six blocks of two 3 × 3 convolutions, of which all but the last halve time and mel bands; then the mean over the bands,
and the sum of the maximum and the mean over time. Parameters have the names under which PANNs and LAION publish them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from clapboard.audio.log_mel import NUM_MELS

WIDTHS = (64, 128, 256, 512, 1024, 2048)


class Cnn14(nn.Module):
    """Log-mel `[B, T, 64]` → pooled `[B, C]`, where C is the last block's width. T must be 32 frames or more."""

    def __init__(self, widths: Sequence[int] = WIDTHS, *, block_dropout: float = 0.2, dropout: float = 0.5) -> None:
        super().__init__()
        self.block_dropout, self.dropout = block_dropout, dropout
        self.bn0 = nn.BatchNorm2d(NUM_MELS)
        self._names = [f"conv_block{number}" for number in range(1, len(widths) + 1)]
        for name, before, width in zip(self._names, [1, *widths], widths, strict=False):
            self.add_module(name, ConvBlock(before, width))
        self.fc1 = nn.Linear(widths[-1], widths[-1])

    @property
    def num_blocks(self) -> int:
        """The number of blocks."""
        return len(self._names)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.pooled(self.run_blocks(self.image(features)))

    def image(self, features: torch.Tensor) -> torch.Tensor:
        """Log-mel `[B, T, 64]` → the first block's input `[B, 1, T, 64]`."""
        # As rows: of other strides, torch 2.11's BatchNorm has a wrong gradient on CPUs.
        return self.bn0(features.reshape(-1, NUM_MELS, 1, 1)).view(features.shape)[:, None]

    def run_blocks(self, image: torch.Tensor, first: int = 0, stop: int | None = None) -> torch.Tensor:
        """`[B, C, T, F]` through the blocks from `first` to before `stop`."""
        for name in self._names[first:stop]:
            image = self.get_submodule(name)(image)
            if name != self._names[-1]:
                image = functional.avg_pool2d(image, 2)
            image = functional.dropout(image, self.block_dropout, self.training)
        return image

    def frames(self, image: torch.Tensor) -> torch.Tensor:
        """The last block's output `[B, C, T, F]` → `[B, T, C]`, each step with its two neighbours as `pooled` has all.

        That is how PANNs' own «DecisionLevel» models tell when a sound is heard (Kong et al. 2020, section 2.5).
        """
        steps = image.mean(dim=3)  # [B, C, T]
        highest = functional.max_pool1d(steps, 3, stride=1, padding=1)
        mean = functional.avg_pool1d(steps, 3, stride=1, padding=1, count_include_pad=False)
        dropped = functional.dropout((highest + mean).transpose(1, 2), self.dropout, self.training)
        return functional.dropout(self.fc1(dropped).relu(), self.dropout, self.training)

    def pooled(self, image: torch.Tensor) -> torch.Tensor:
        """The last block's output `[B, C, T, F]` → `[B, C]`."""
        frames = image.mean(dim=3)
        pooled = functional.dropout(frames.amax(dim=2) + frames.mean(dim=2), self.dropout, self.training)
        return functional.dropout(self.fc1(pooled).relu(), self.dropout, self.training)


class ConvBlock(nn.Module):
    """Two convolutions with BatchNorm and ReLU: `[B, C, T, F]` → `[B, C', T, F]`."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = self.bn1(self.conv1(image)).relu()
        return self.bn2(self.conv2(image)).relu()
