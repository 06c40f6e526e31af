"""Turns a batch's sounds into the audio tower's input and output, with the window policy used in service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from clapboard.audio.four_mels import batched, four_mels
from clapboard.audio.log_mel import LogMel
from clapboard.audio.windows import SAMPLE_RATE, Waveform, repeat_pad
from clapboard.model.cnn14 import Cnn14
from clapboard.model.htsat import Htsat
from clapboard.model.tower_output import TowerOutput
from clapboard.model.towers import Cnn14Tower, FrameGrid
from training.augment import Augment


@dataclass(frozen=True)
class Prepared:
    """Log-mel `[B, 1001, 64]`; or four mels `[B, 4, 1001, 64]` with a mask `[B]` of clips that use the local ones."""

    features: torch.Tensor
    is_longer: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, part: slice) -> Prepared:
        """These clips alone."""
        return Prepared(self.features[part], None if self.is_longer is None else self.is_longer[part])

    def split(self, size: int) -> list[Prepared]:
        """Portions of `size` clips; the last one may be smaller."""
        parts = torch.split(self.features, size)
        marks = [None] * len(parts) if self.is_longer is None else torch.split(self.is_longer, size)
        return [Prepared(*part) for part in zip(parts, marks, strict=True)]

    def as_leaf(self) -> Prepared:
        """The same features as a leaf of a new graph."""
        return replace(self, features=self.features.detach().requires_grad_(self.features.requires_grad))


class AudioInput:
    """Turns waveforms into pooled vectors in two steps: `prepare` needs the whole batch, `pooled` any portion of it.

    HTSAT is computed by serving's fast forward pass, PANN-14 by its own, whose BatchNorms see one portion at a time.
    """

    def __init__(self, model: Any, log_mel: LogMel, *, augment: Augment | None, dtype: torch.dtype) -> None:
        encoder = model.audio_model.audio_encoder
        self.is_fused = bool(model.config.audio_config.enable_fusion)
        self._htsat = None if isinstance(encoder, Cnn14) else Htsat(encoder, dtype)
        self._cnn14 = Cnn14Tower(encoder, dtype) if isinstance(encoder, Cnn14) else None
        self._log_mel = log_mel.float()  # training needs no float64
        self._augment = augment
        self._device = model.device
        grid = FrameGrid.of(encoder)
        self.num_frames, self.frame_s = grid.num_frames, grid.frame_samples / SAMPLE_RATE

    def prepare(self, sounds: Sequence[Waveform], windows: Sequence[Waveform] = ()) -> Prepared:
        """The features of waveforms `[T]`, at most 10 s long unless the model fuses four mels, and of windows.

        In `windows`, no frames are masked: what is heard in them has to be found.
        """
        with torch.no_grad():
            features, is_longer = self._features([*sounds, *windows])
            if self._augment:
                parts = [self._augment(features[: len(sounds)])]
                if windows:
                    parts.append(self._augment.equalised(features[len(sounds) :]))
                features = torch.cat(parts)
        return Prepared(self._htsat.normalised(features) if self._htsat else features, is_longer)

    def pooled(self, prepared: Prepared, *, shared: bool = False) -> torch.Tensor:
        """Pooled `[B, C]` float32 of any portion of the prepared batch; `shared`: other processes call this too."""
        return self._output(prepared, shared).pooled

    def frames(self, prepared: Prepared, *, shared: bool = False) -> torch.Tensor:
        """The frames `[B, T, C]` of the same portion, in the order of time."""
        return self._output(prepared, shared).frames

    def _output(self, prepared: Prepared, shared: bool) -> TowerOutput:
        if self._cnn14:
            return self._cnn14.with_frames(prepared.features)
        assert self._htsat
        tokens = self._htsat.tokens_of_normalised(prepared.features, prepared.is_longer, always_fuse=shared)
        return self._htsat.pooled_with_frames(self._htsat.run_stages(tokens))

    def _features(self, sounds: Sequence[Waveform]) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.is_fused:
            return batched([four_mels([sound], self._log_mel) for sound in sounds])
        windows = np.stack([repeat_pad(sound) for sound in sounds])  # [B, 480000]
        return self._log_mel(on_device(torch.from_numpy(windows), self._device)), None


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on the device; a GPU copies them from pinned memory while it computes."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
