"""How loud a recording is, by time and pitch: coarse enough to be stored, fine enough to tell when a sound begins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEVEL_S = 0.05
"""What one row of levels covers, in seconds."""

NUM_BANDS = 16

_STEPS = 5  # of the log-mel's 10 ms

Levels = npt.NDArray[np.float32]
"""`[T, 16]` in dB: row i covers [i, i + 1) · `LEVEL_S` of a recording, and each column four neighbouring mel bands."""


def levels(log_mel: npt.NDArray[np.float32]) -> Levels:
    """The mean power in dB of each 50 ms and four mel bands: log-mel of windows `[N, 1001, 64]` → `[N, 200, 16]`."""
    num_windows, num_steps, num_mels = log_mel.shape
    num_rows = num_steps // _STEPS
    power = 10.0 ** (log_mel[:, : num_rows * _STEPS] / 10.0)
    cells = power.reshape(num_windows, num_rows, _STEPS, NUM_BANDS, num_mels // NUM_BANDS)
    return (10.0 * np.log10(cells.mean(axis=(2, 4)) + 1e-10)).astype(np.float32)
