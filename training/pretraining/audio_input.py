"""Sounds of a batch → what the audio tower learns from: the serving window policy, log-mel, augmentation, BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from clapboard.audio import Waveform, repeat_pad
from clapboard.cnn14 import Cnn14
from clapboard.features import LogMel
from clapboard.fusion import batched, four_mels
from clapboard.htsat import Htsat
from clapboard.towers import Cnn14Tower
from training.augment import Augment


@dataclass(frozen=True)
class Prepared:
    """Log-mel `[B, 1001, 64]`, or four mels `[B, 4, 1001, 64]` and whose local ones count, `[B]`."""

    features: torch.Tensor
    is_longer: torch.Tensor | None = None

    def split(self, size: int) -> list[Prepared]:
        """Portions of so many clips."""
        parts = torch.split(self.features, size)
        marks = [None] * len(parts) if self.is_longer is None else torch.split(self.is_longer, size)
        return [Prepared(*part) for part in zip(parts, marks, strict=True)]

    def as_leaf(self) -> Prepared:
        """The same, where a graph begins."""
        return replace(self, features=self.features.detach().requires_grad_(self.features.requires_grad))


class AudioInput:
    """The way from waveforms to pooled vectors, in two steps: what has to see the whole batch, and the rest.

    HTSAT goes the fast way of serving, PANN-14 its own, whose BatchNorms see the clips that go through at once.
    """

    def __init__(self, model: Any, log_mel: LogMel, *, augment: Augment | None, dtype: torch.dtype) -> None:
        encoder = model.audio_model.audio_encoder
        self.is_fused = bool(model.config.audio_config.enable_fusion)
        self._htsat = None if isinstance(encoder, Cnn14) else Htsat(encoder, dtype)
        self._cnn14 = Cnn14Tower(encoder, dtype) if isinstance(encoder, Cnn14) else None
        self._log_mel = log_mel.float()  # training needs no float64
        self._augment = augment
        self._device = model.device

    def prepare(self, sounds: Sequence[Waveform]) -> Prepared:
        """Waveforms `[T]`, of 10 s at most unless the model fuses four mels, as the rest needs them."""
        with torch.no_grad():
            features, is_longer = self._features(sounds)
            if self._augment:
                features = self._augment(features)
        return Prepared(self._htsat.normalised(features) if self._htsat else features, is_longer)

    def pooled(self, prepared: Prepared, *, shared: bool = False) -> torch.Tensor:
        """Any portion of what `prepare` gave → `[B, C]` float32; `shared`: other processes go through one meanwhile."""
        if self._cnn14:
            return self._cnn14(prepared.features)
        assert self._htsat
        tokens = self._htsat.tokens_of(prepared.features, prepared.is_longer, fuse_none=shared)
        return self._htsat.pooled(self._htsat.through(tokens))

    def _features(self, sounds: Sequence[Waveform]) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.is_fused:
            return batched([four_mels([sound], self._log_mel) for sound in sounds])
        windows = np.stack([repeat_pad(sound) for sound in sounds])  # [B, 480000]
        return self._log_mel(on_device(torch.from_numpy(windows), self._device)), None


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same there. From pinned memory, a GPU fetches them while it computes."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
