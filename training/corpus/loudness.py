"""Integrated loudness by ITU-R BS.1770-4, whose filter coefficients are given for 48 kHz, the rate we decode to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import sosfilt

from clapboard.audio.windows import SAMPLE_RATE

_STEP_SAMPLES = SAMPLE_RATE // 10
_STEPS_PER_BLOCK = 4  # 400 ms, overlapping by three quarters
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
# The standard's tables 1 and 2: a shelf for the acoustic effect of the head, then a high-pass.
_K_WEIGHTING = np.array(
    [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
)


def loudness(waveform: npt.NDArray[np.floating]) -> float:
    """The integrated loudness of `[T]` in LUFS; −∞ if no block is above the absolute gate.

    A waveform shorter than a block of 400 ms is repeated to fill it.
    """
    block = _STEPS_PER_BLOCK * _STEP_SAMPLES
    if waveform.size < block:
        waveform = np.resize(waveform, block)
    weighted = sosfilt(_K_WEIGHTING, waveform.astype(np.float64))
    steps = (
        np.square(weighted[: weighted.size // _STEP_SAMPLES * _STEP_SAMPLES]).reshape(-1, _STEP_SAMPLES).mean(axis=1)
    )
    powers = np.convolve(steps, np.full(_STEPS_PER_BLOCK, 1 / _STEPS_PER_BLOCK), "valid")
    powers = powers[powers > _power(_ABSOLUTE_GATE_LUFS)]
    if powers.size == 0:
        return -np.inf
    relative_gate = _power(_lufs(powers.mean()) + _RELATIVE_GATE_LU)
    return _lufs(powers[powers > relative_gate].mean())


def _lufs(power: float) -> float:
    return float(-0.691 + 10 * np.log10(power))


def _power(lufs: float) -> float:
    return float(10 ** ((lufs + 0.691) / 10))
