"""Log-mel as HTSAT sees it: stretched to 1024 frames, folded into a square image, and cut into patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from clapboard.features import NUM_FRAMES, NUM_MELS

IMAGE_SIDE = 256


@dataclass(frozen=True, eq=False)
class Stretch:
    """Bicubic interpolation of the 1001 frames to as many as the image has, each from four of them."""

    frames: torch.Tensor  # [4, F]
    shares: torch.Tensor  # [4, F, 1]

    @classmethod
    def to_frames(cls, num_frames: int, device: torch.device) -> Stretch:
        # What the reference's own interpolation makes of each frame alone: [F, 1001].
        every = torch.eye(NUM_FRAMES)[None, None]
        shares = functional.interpolate(every, (num_frames, NUM_FRAMES), mode="bicubic", align_corners=True)[0, 0]
        frames = shares.abs().topk(4, dim=1).indices.sort(dim=1).values  # [F, 4]
        return cls(frames.T.contiguous().to(device), shares.gather(1, frames).T[:, :, None].contiguous().to(device))

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        """`[B, 1001, 64]` → `[B, F, 64]`."""
        stretched = mel.index_select(1, self.frames[0]) * self.shares[0]
        for frames, shares in zip(self.frames[1:], self.shares[1:], strict=True):
            stretched = torch.addcmul(stretched, mel.index_select(1, frames), shares)
        return stretched


def patches_of(image: torch.Tensor, patch_side: int, group_side: int) -> torch.Tensor:
    """Square patches in the first stage's order: `[B, 1024, 64]` → `[G, B, S, P²]`.

    Four stretches of 256 frames lie above each other, so the image is 4 · 64 bands high and 256 frames wide.
    """
    across, down = (extent // (group_side * patch_side) for extent in (IMAGE_SIDE, NUM_MELS))
    parts = image.view(len(image), -1, across, group_side, patch_side, down, group_side, patch_side)
    return parts.permute(1, 5, 2, 0, 6, 3, 7, 4).reshape(-1, len(image), group_side**2, patch_side**2)


def images(mels: torch.Tensor) -> torch.Tensor:
    """The image as a whole, bands downwards, frames to the right: `[N, 1024, 64]` → `[N, 256, 256]`."""
    return torch.unflatten(mels, 1, (-1, IMAGE_SIDE)).transpose(2, 3).reshape(len(mels), IMAGE_SIDE, IMAGE_SIDE)
