"""Windows → log-mel features, in batches, on the windows' device.

The recipe of every CLAP checkpoint (LAION-AI/CLAP, and `ClapFeatureExtractor` in transformers): frames of 1024 samples
every 480, periodic Hann window, centred with reflection, power spectrum, 64 mel bands of 50–14,000 Hz,
10·log10(max(1e-10, ·)). Filterbanks differ: Slaney's scale and norm for unfused checkpoints, HTK's scale without norm
for fused ones.

The Fourier transform is computed in float64: float32 would put the quiet bands of a loud clip off by 0.1 dB and more
(measured on real clips). `LogMel(…).float()` computes in float32, a third faster, for models that round their input
more coarsely than that anyway.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from clapboard.audio.windows import SAMPLE_RATE

Filterbank = Literal["slaney", "htk"]
_Hz = npt.NDArray[np.floating[Any]]

FRAME_SAMPLES = 1024
HOP_SAMPLES = 480
NUM_FRAMES = 1001
NUM_MELS = 64
FLOOR = 1e-10

_FRAMES_AT_ONCE = 143  # a seventh of a window


class LogMel(torch.nn.Module):
    """Log-mel features in dB: waveforms `[B, T]` → `[B, T // 480 + 1, 64]`, float32; a window has 1001 frames."""

    def __init__(self, filterbank: Filterbank, *, min_hz: float = 50.0, max_hz: float = 14_000.0) -> None:
        super().__init__()
        filters = torch.from_numpy(mel_filterbank(filterbank, min_hz, max_hz))
        self._num_bins = int(filters.any(dim=1).nonzero().max()) + 1  # no filter covers the bins above
        # Real and imaginary parts lie side by side: both have the bin's weights.
        filters = filters[: self._num_bins].repeat_interleave(2, dim=0).float()
        hann = torch.hann_window(FRAME_SAMPLES, periodic=True, dtype=torch.float64)
        self.register_buffer("filters", filters, persistent=False)  # [2 · bins, 64]
        self.register_buffer("hann", hann, persistent=False)  # [1024]
        self.filters: torch.Tensor
        self.hann: torch.Tensor

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        margin = FRAME_SAMPLES // 2
        before, after = waveforms[:, 1 : margin + 1].flip(1), waveforms[:, -margin - 1 : -1].flip(1)
        return self.of_frames(torch.cat([before, waveforms, after], dim=1))

    def of_frames(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Waveforms `[B, T]` → `[B, (T - 1024) // 480 + 1, 64]`: only the frames that lie wholly in them."""
        frames = waveforms.unfold(1, FRAME_SAMPLES, HOP_SAMPLES)  # [B, F, 1024]
        if waveforms.device.type == "cpu":  # as many frames at once as its cache holds
            windows = torch.split(frames, 1)
            parts = [part for window in windows for part in torch.split(window, _FRAMES_AT_ONCE, dim=1)]
        else:
            parts = [frames]
        mel = torch.cat([self._mel(part) for part in parts], dim=1).view(len(waveforms), -1, NUM_MELS)
        return mel.clamp_(min=FLOOR).log10_().mul_(10.0)

    def _mel(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames `[B, F, 1024]` → powers `[B, F, 64]`, which as sums of squares lose nothing in float32."""
        spectrum = torch.fft.rfft(frames * self.hann)[..., : self._num_bins]
        parts = torch.view_as_real(spectrum).flatten(-2).float()  # [B, F, 2 · bins]
        with torch.autocast(frames.device.type, enabled=False):
            return parts.square() @ self.filters


def mel_filterbank(filterbank: Filterbank, min_hz: float, max_hz: float) -> npt.NDArray[np.float64]:
    """Triangular mel filters over the bins of the power spectrum, `[513, 64]`.

    `slaney`: linear below 1 kHz, logarithmic above, each filter divided by its half-width in Hz (Slaney, Auditory
    Toolbox, 1998). `htk`: 2595·log10(1 + f/700), peak 1 (Young et al., The HTK Book).
    """
    to_mel, to_hz = (_slaney_mel, _slaney_hz) if filterbank == "slaney" else (_htk_mel, _htk_hz)
    lowest, highest = to_mel(np.array([min_hz, max_hz])).tolist()
    edges_hz = to_hz(np.linspace(lowest, highest, NUM_MELS + 2))  # [66]
    bins_hz = np.linspace(0.0, SAMPLE_RATE / 2, FRAME_SAMPLES // 2 + 1)  # [513]
    widths_hz = np.diff(edges_hz)  # [65]
    slopes = edges_hz[None, :] - bins_hz[:, None]  # [513, 66]
    rising = -slopes[:, :-2] / widths_hz[:-1]
    falling = slopes[:, 2:] / widths_hz[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))  # [513, 64]
    if filterbank == "slaney":
        filters *= 2.0 / (edges_hz[2:] - edges_hz[:-2])
    return np.ascontiguousarray(filters)


_SLANEY_BREAK_HZ, _SLANEY_BREAK_MEL = 1000.0, 15.0
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


def _slaney_mel(hz: _Hz) -> _Hz:
    above = _SLANEY_BREAK_MEL + np.log(np.maximum(hz, _SLANEY_BREAK_HZ) / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_BREAK_HZ, hz * _SLANEY_BREAK_MEL / _SLANEY_BREAK_HZ, above)


def _slaney_hz(mel: _Hz) -> _Hz:
    above = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * (mel - _SLANEY_BREAK_MEL))
    return np.where(mel < _SLANEY_BREAK_MEL, mel * _SLANEY_BREAK_HZ / _SLANEY_BREAK_MEL, above)


def _htk_mel(hz: _Hz) -> _Hz:
    return 2595.0 * np.log10(1.0 + hz / 700.0)


def _htk_hz(mel: _Hz) -> _Hz:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
