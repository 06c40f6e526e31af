"""The audio tower of any checkpoint: HTSAT by the fastest engine that agrees, PANN-14 by torch."""

from __future__ import annotations

import logging

import torch

from clapboard.cnn14 import Cnn14
from clapboard.errors import ModelError
from clapboard.htsat import engines
from clapboard.htsat.engines import AudioTower, Engine

log = logging.getLogger(__name__)


def load_tower(
    encoder: torch.nn.Module, dtype: torch.dtype, probe: torch.Tensor, engine: Engine = "auto"
) -> AudioTower:
    """The tower that serves a checkpoint's `audio_model.audio_encoder`, computed in `dtype`.

    HTSAT's engines have to agree with the reference on `probe`, log-mel `[B, 1001, 64]`. Raises `ModelError` if a named
    engine can't be used.
    """
    if not isinstance(encoder, Cnn14):
        return engines.load_tower(encoder, dtype, probe, engine)
    if engine == "openvino":
        raise ModelError("Engine openvino doesn't compute PANN-14: set CLAPBOARD_ENGINE to auto.")
    log.info("the audio tower is PANN-14, computed by torch in %s", dtype)
    return Cnn14Tower(encoder, dtype)


class Cnn14Tower:
    """PANN-14's own forward pass, by autocast where `dtype` isn't float32. BatchNorm and dropout follow its mode."""

    def __init__(self, encoder: Cnn14, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._dtype = dtype

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]` → pooled `[B, C]` float32. There is no fusion: nothing is ever «longer»."""
        with torch.autocast(features.device.type, self._dtype, enabled=self._dtype != torch.float32):
            pooled: torch.Tensor = self._encoder(features)
        return pooled.float()
