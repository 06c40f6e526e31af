"""Attentional feature fusion: what three local mels of a long recording add to the tokens of its global one.

By the layers of transformers' `ClapAudioPatchEmbed` themselves, in float32: they are small. None of them looks from one
token to another but to average over all, so that it is one to them in which order the tokens lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

_NUM_LOCAL = 3


@dataclass(frozen=True, eq=False)
class Fusion:
    """CLAP's fusion (Wu et al. 2023, arXiv 2211.06687, section 2.3), by Dai et al.'s block (2021, arXiv 2009.14082).

    What is fused: the global mel's tokens, and those that a kernel three times as long makes of the local mels, which
    lie side by side.
    """

    kernel: torch.nn.Module
    local_attention: Any
    global_attention: Any
    group_side: int

    @classmethod
    def of(cls, patch_embed: Any, group_side: int) -> Fusion:
        """The reference's layers, which stay where they are."""
        block = patch_embed.fusion_model
        return cls(patch_embed.mel_conv2d, block.local_att, block.global_att, group_side)

    def __call__(self, tokens: torch.Tensor, local_images: torch.Tensor) -> torch.Tensor:
        """Tokens `[G, B, S, C]` of global mels and images `[B · 3, 256, 256]` of local ones → `[G, B, S, C]`."""
        whole = tokens.float().permute(1, 3, 0, 2).contiguous()  # [G, B, S, C] → [B, C, G, S]
        local = self._local(local_images, len(whole), side=math.isqrt(whole.shape[2] * whole.shape[3]))
        both = whole + local
        share = torch.sigmoid(_through(self.local_attention, both) + _through(self.global_attention, both))
        fused = 2 * whole * share + 2 * local * (1 - share)
        return fused.permute(2, 0, 3, 1).to(tokens.dtype)

    def _local(self, images: torch.Tensor, batch: int, *, side: int) -> torch.Tensor:
        """`[B · 3, 256, 256]` → `[B, C, G, S]`; what columns the grid lacks on its right are zeros."""
        strips = torch.unflatten(self.kernel(images[:, None]), 0, (batch, _NUM_LOCAL))
        grid = strips.permute(0, 2, 3, 1, 4).flatten(3)  # [B, 3, C, 64, 21] → [B, C, 64, 63]
        grid = functional.pad(grid, (0, side - grid.shape[-1]))
        groups = torch.unflatten(torch.unflatten(grid, 3, (-1, self.group_side)), 2, (-1, self.group_side))
        return groups.transpose(3, 4).flatten(4).flatten(2, 3)  # [B, C, down, 8, across, 8] → [B, C, G, S]


def _through(layers: Any, values: torch.Tensor) -> torch.Tensor:
    """The layers one after the other.

    A BatchNorm that trains goes by its stored statistics where it sees one value a channel, as of the averages over a
    batch's only long clip: one value has no variance. One that sees other processes' values too decides by itself.
    """
    for layer in layers:
        if type(layer) is torch.nn.BatchNorm2d and layer.training and values.numel() == values.shape[1]:
            values = functional.batch_norm(
                values, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps
            )
        else:
            values = layer(values)
    return values
