"""Log-mel → the square image that HTSAT sees (Chen et al. 2022, arXiv 2202.00874, section 2.1), and its patches.

HTSAT is a vision transformer. A window of 10 s becomes a picture in three steps:

    log-mel                                             [1001 frames, 64 bands]
    stretched to 1024 frames                            [1024, 64]
    cut into 4 strips of 256 frames, each turned so
    that time runs to the right, one below the other    [4 · 64, 256] = [256, 256]

The image is then cut into square patches of P × P pixels, which the first layer turns into tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from clapboard.audio.log_mel import NUM_FRAMES, NUM_MELS

IMAGE_SIDE = 256
_STRETCHED_FRAMES = IMAGE_SIDE * IMAGE_SIDE // NUM_MELS  # 1024
_TAPS = 4  # of bicubic interpolation


@dataclass(frozen=True, eq=False)
class Stretch:
    """Bicubic interpolation along time, from 1001 frames to 1024: each new frame is a weighted sum of 4 old ones."""

    sources: torch.Tensor  # [4, 1024]: which old frames
    weights: torch.Tensor  # [4, 1024, 1]

    @classmethod
    def on(cls, device: torch.device) -> Stretch:
        """The interpolation that the reference does, with its tables on a device."""
        # Interpolating the identity matrix shows how much of each old frame is in each new one.
        identity = torch.eye(NUM_FRAMES)[None, None]
        size = (_STRETCHED_FRAMES, NUM_FRAMES)
        matrix = functional.interpolate(identity, size, mode="bicubic", align_corners=True)[0, 0]  # [1024, 1001]
        sources = matrix.abs().topk(_TAPS, dim=1).indices.sort(dim=1).values  # [1024, 4]
        weights = matrix.gather(1, sources)
        return cls(sources.T.contiguous().to(device), weights.T[:, :, None].contiguous().to(device))

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        """`[B, 1001, 64]` → `[B, 1024, 64]`."""
        stretched = mel.index_select(1, self.sources[0]) * self.weights[0]
        for source, weight in zip(self.sources[1:], self.weights[1:], strict=True):
            stretched = torch.addcmul(stretched, mel.index_select(1, source), weight)
        return stretched


def patches_of(stretched: torch.Tensor, patch_side: int, group_side: int) -> torch.Tensor:
    """Stretched log-mel `[B, 1024, 64]` → the image's patches `[G, B, S, P²]`, in the first stage's order.

    That order goes by groups of S = `group_side`² neighbouring patches, which attend to each other (see `order`). It is
    reached straight from the log-mel, without making the image.
    """
    batch = len(stretched)
    group_pixels = group_side * patch_side
    across, down = IMAGE_SIDE // group_pixels, NUM_MELS // group_pixels  # groups in a strip
    # A frame's number is (strip, group, patch, pixel) from left to right, a band's (group, patch, pixel) downwards:
    axes = stretched.view(batch, -1, across, group_side, patch_side, down, group_side, patch_side)
    # [B, strip, group x, patch x, pixel x, group y, patch y, pixel y]
    #   → [strip, group y, group x, B, patch y, patch x, pixel y, pixel x]
    ordered = axes.permute(1, 5, 2, 0, 6, 3, 7, 4)
    return ordered.reshape(-1, batch, group_side**2, patch_side**2)


def images_of(stretched: torch.Tensor) -> torch.Tensor:
    """Stretched log-mels `[N, 1024, 64]` → whole images `[N, 256, 256]`, for layers that need one."""
    strips = torch.unflatten(stretched, 1, (-1, IMAGE_SIDE))  # [N, strip, frame, band]
    return strips.transpose(2, 3).reshape(len(stretched), IMAGE_SIDE, IMAGE_SIDE)
