"""Attentional feature fusion: adds what three local mels of a long recording say to the tokens of its global one.

It runs the layers of transformers' `ClapAudioPatchEmbed` themselves, in float32: they are small. None of them relates
one token to another except by averaging over all of them, so the order of the tokens doesn't matter.
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

    It fuses the global mel's tokens with those of the local mels, which are laid side by side and cut by a kernel
    three times as long.
    """

    kernel: torch.nn.Module
    local_attention: Any
    global_attention: Any
    group_side: int

    @classmethod
    def of(cls, patch_embed: Any, group_side: int) -> Fusion:
        """The reference's own layers, not copies of them."""
        block = patch_embed.fusion_model
        return cls(patch_embed.mel_conv2d, block.local_att, block.global_att, group_side)

    def __call__(self, tokens: torch.Tensor, local_images: torch.Tensor) -> torch.Tensor:
        """Tokens `[G, B, S, C]` of global mels and images `[B · 3, 256, 256]` of local ones → `[G, B, S, C]`."""
        of_global = tokens.float().permute(1, 3, 0, 2).contiguous()  # [G, B, S, C] → [B, C, G, S]
        grid_side = math.isqrt(of_global.shape[2] * of_global.shape[3])
        of_local = self._local_tokens(local_images, len(of_global), grid_side)
        both = of_global + of_local
        share = torch.sigmoid(_run(self.local_attention, both) + _run(self.global_attention, both))
        fused = 2 * of_global * share + 2 * of_local * (1 - share)
        return fused.permute(2, 0, 3, 1).to(tokens.dtype)

    def _local_tokens(self, images: torch.Tensor, batch: int, grid_side: int) -> torch.Tensor:
        """`[B · 3, 256, 256]` → `[B, C, G, S]`, with zeros in the columns that are missing on the grid's right."""
        strips = torch.unflatten(self.kernel(images[:, None]), 0, (batch, _NUM_LOCAL))
        grid = strips.permute(0, 2, 3, 1, 4).flatten(3)  # [B, 3, C, 64, 21] → [B, C, 64, 63]
        grid = functional.pad(grid, (0, grid_side - grid.shape[-1]))
        groups = torch.unflatten(torch.unflatten(grid, 3, (-1, self.group_side)), 2, (-1, self.group_side))
        return groups.transpose(3, 4).flatten(4).flatten(2, 3)  # [B, C, down, 8, across, 8] → [B, C, G, S]


def _run(layers: Any, values: torch.Tensor) -> torch.Tensor:
    """The values through the layers, one after the other.

    A BatchNorm in training mode uses its stored statistics if it sees a single value a channel, which has no variance:
    so it is for the averages over the only long clip of a batch. A `SyncBatchNorm`, which also sees other processes'
    values, is left alone.
    """
    for layer in layers:
        if type(layer) is torch.nn.BatchNorm2d and layer.training and values.numel() == values.shape[1]:
            values = functional.batch_norm(
                values, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps
            )
        else:
            values = layer(values)
    return values
