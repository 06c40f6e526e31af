"""Changes to log-mel features that a listener would forgive: another microphone, lost moments and lost bands."""

from __future__ import annotations

import torch
from torchaudio.transforms import FrequencyMasking, TimeMasking

_EQ_KNOTS = 6
_EQ_DB = 6.0
_MASKED_MELS = 10
_MASKED_FRAMES = 120
_NUM_TIME_MASKS = 2


class Augment(torch.nn.Module):
    """Log-mel `[B, 1001, 64]` in dB → the same with a random equaliser curve and SpecAugment's masks, per clip."""

    def __init__(self, *, masks: bool = True) -> None:
        """Without `masks`, the equaliser alone."""
        super().__init__()
        self._masks = masks
        self.mask_mels = FrequencyMasking(_MASKED_MELS, iid_masks=True)
        self.mask_frames = TimeMasking(_MASKED_FRAMES, iid_masks=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        num_mels = features.shape[2]
        knots = (torch.rand(len(features), 1, _EQ_KNOTS, device=features.device) * 2 - 1) * _EQ_DB
        curve = torch.nn.functional.interpolate(knots, num_mels, mode="linear", align_corners=True)  # [B, 1, 64]
        features = features + curve
        if not self._masks:
            return features
        mean_db = features.mean().item()
        image = features.transpose(1, 2)[:, None]  # [B, 1001, 64] → [B, 1, 64, 1001]
        image = self.mask_mels(image, mask_value=mean_db)
        for _ in range(_NUM_TIME_MASKS):
            image = self.mask_frames(image, mask_value=mean_db)
        return image[:, 0].transpose(1, 2)  # [B, 1, 64, 1001] → [B, 1001, 64]
