"""Sounds of a batch → what the audio tower learns from: the serving window policy, log-mel, augmentation, BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clapboard.audio import Waveform, repeat_pad
from clapboard.features import LogMel
from clapboard.htsat import Htsat
from training.augment import Augment


class AudioInput:
    """HTSAT's way from waveforms to pooled vectors, in two steps: what has to see the whole batch, and the rest."""

    def __init__(self, model: Any, log_mel: LogMel, *, augment: Augment | None, dtype: torch.dtype) -> None:
        self._htsat = Htsat(model.audio_model.audio_encoder, dtype)
        self._log_mel = log_mel.float()  # training needs no float64
        self._augment = augment
        self._device = model.device

    def prepare(self, sounds: Sequence[Waveform]) -> torch.Tensor:
        """Waveforms `[T]` of 10 s at most → normalised log-mel `[B, 1001, 64]`."""
        windows = np.stack([repeat_pad(sound) for sound in sounds])  # [B, 480000]
        with torch.no_grad():
            features = self._log_mel(torch.from_numpy(windows).to(self._device))
            if self._augment:
                features = self._augment(features)
        return self._htsat.normalised(features)

    def pooled(self, prepared: torch.Tensor) -> torch.Tensor:
        """Any of what `prepare` gave → `[B, C]` float32."""
        return self._htsat.pooled(self._htsat.through(self._htsat.embed(self._htsat.cut(prepared))))
