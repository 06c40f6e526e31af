"""Augments log-mel features: a random equaliser, as another microphone would be, and masked frames and bands."""

from __future__ import annotations

import torch
from torchaudio.transforms import FrequencyMasking, TimeMasking

_EQ_KNOTS = 6
_EQ_DB = 6.0
_MASKED_MELS = 10
_MASKED_FRAMES = 120
_NUM_TIME_MASKS = 2


class Augment(torch.nn.Module):
    """Applies a random equaliser curve and SpecAugment's masks (Park et al. 2019) to each clip's log-mel in dB.

    Takes `[B, 1001, 64]`, or four mels of each recording `[B, 4, 1001, 64]`, which share the curve but not the masks.
    """

    def __init__(self, *, masks: bool = True) -> None:
        """Without `masks`, only the equaliser is applied."""
        super().__init__()
        self._masks = masks
        self.mask_mels = FrequencyMasking(_MASKED_MELS, iid_masks=True)
        self.mask_frames = TimeMasking(_MASKED_FRAMES, iid_masks=True)

    def equalised(self, features: torch.Tensor) -> torch.Tensor:
        """The features with the equaliser alone."""
        knots = (torch.rand(len(features), 1, _EQ_KNOTS, device=features.device) * 2 - 1) * _EQ_DB
        curve = torch.nn.functional.interpolate(
            knots, features.shape[-1], mode="linear", align_corners=True
        )  # [B, 1, 64]
        return features + (curve if features.ndim == 3 else curve[:, None])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        num_frames, num_mels = features.shape[-2:]
        features = self.equalised(features)
        if not self._masks:
            return features
        mean_db = features.mean()  # kept as a tensor, so as not to wait for the GPU
        image = features.reshape(-1, 1, num_frames, num_mels).transpose(2, 3)  # [N, 1, 64, 1001]
        image = self.mask_mels(image, mask_value=mean_db)
        for _ in range(_NUM_TIME_MASKS):
            image = self.mask_frames(image, mask_value=mean_db)
        return image.transpose(2, 3).reshape(features.shape)
