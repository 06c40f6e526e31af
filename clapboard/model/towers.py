"""The audio tower of any checkpoint: HTSAT on the fastest engine that agrees with the reference, PANN-14 on torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clapboard.audio.log_mel import HOP_SAMPLES, NUM_FRAMES
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES
from clapboard.errors import ModelError
from clapboard.model.cnn14 import Cnn14
from clapboard.model.htsat import engines
from clapboard.model.htsat.engines import AudioTower, Engine
from clapboard.model.htsat.image import IMAGE_SIDE
from clapboard.model.htsat.order import num_frames
from clapboard.model.tower_output import TowerOutput


def load_tower(
    encoder: torch.nn.Module, dtype: torch.dtype, probe: torch.Tensor, engine: Engine = "auto"
) -> AudioTower:
    """The tower that serves a checkpoint's `audio_model.audio_encoder`, computed in `dtype`.

    HTSAT's engines are checked against the reference on `probe`, log-mel `[B, 1001, 64]`. Raises `ModelError` if a
    named engine can't be used.
    """
    if not isinstance(encoder, Cnn14):
        return engines.load_tower(encoder, dtype, probe, engine)
    if engine == "openvino":
        raise ModelError("Engine openvino doesn't compute PANN-14: set CLAPBOARD_ENGINE to auto.")
    return Cnn14Tower(encoder, dtype)


def engine_reason(encoder: torch.nn.Module, engine: Engine, tower: AudioTower, device: torch.device) -> str:
    """Why the tower is computed by its engine, in words."""
    return "as PANN-14 is" if isinstance(encoder, Cnn14) else engines.engine_reason(engine, tower, device)


@dataclass(frozen=True)
class FrameGrid:
    """The frames of a window: how many there are, and the length of each in samples."""

    num_frames: int
    frame_samples: int

    @classmethod
    def of(cls, encoder: Any) -> FrameGrid:
        """That of a checkpoint's `audio_model.audio_encoder`."""
        if isinstance(encoder, Cnn14):
            # Each halving leaves out what is over, so the last frame ends a little before the window does.
            halvings = encoder.num_blocks - 1
            return cls(NUM_FRAMES >> halvings, HOP_SAMPLES << halvings)
        frames = num_frames(IMAGE_SIDE // encoder.config.patch_size, encoder.config.depths)
        return cls(frames, WINDOW_SAMPLES // frames)


def probe_windows() -> torch.Tensor:
    """Three windows `[3, 480000]` that differ as much as can be: noise, a rising tone that dies away, and silence."""
    rng, time_s = np.random.default_rng(0), np.arange(WINDOW_SAMPLES) / SAMPLE_RATE
    tone = np.exp(-time_s) * np.sin(2 * np.pi * (100 + 300 * time_s) * time_s)
    sounds = [rng.uniform(-0.5, 0.5, WINDOW_SAMPLES), tone, np.zeros(WINDOW_SAMPLES)]
    return torch.from_numpy(np.stack(sounds).astype(np.float32))


class Cnn14Tower:
    """PANN-14's own forward pass, by autocast if `dtype` isn't float32, in the module's own mode, training or not."""

    engine = "torch"

    def __init__(self, encoder: Cnn14, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._dtype = dtype

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]` → pooled `[B, C]` float32. There is no fusion: `is_longer` is ignored."""
        return self.with_frames(features, is_longer).pooled

    def with_frames(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> TowerOutput:
        """The same with frames `[B, T, C]`."""
        with torch.autocast(features.device.type, self._dtype, enabled=self._dtype != torch.float32):
            image = self._encoder.run_blocks(self._encoder.image(features))
            pooled, frames = self._encoder.pooled(image), self._encoder.frames(image)
        return TowerOutput(pooled.float(), frames.float())
