"""Edges of events, moved to the nearest jump in the signal's own level.

A frame lasts half a second, and what CLAP says about it leaks into its neighbours. When a sound begins and ends is
plain in the level of the bands that it fills. Nearer jumps count more, so that an edge doesn't move to another sound's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clapboard.suggest.scoring import Array

_SIDE_S = 0.4  # compared before and after a jump
_REACH_S = 1.2
_NEAR_S = 0.6  # at this distance a jump counts e^(-1/2) as much as at the edge itself
_MIN_JUMP_DB = 2.0
_MIN_EVENT_S = 0.1

Jumps = npt.NDArray[np.float32]


class LevelEdges:
    """Where a recording becomes louder or quieter, by its levels `[T, B]` in dB, a row for each `level_s` seconds."""

    def __init__(self, levels: Array, level_s: float) -> None:
        self._level_s = level_s
        self._rises, self._falls = _jumps(levels, max(1, round(_SIDE_S / level_s)))

    def moved(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The event's start at the rise near it that counts most, and its end at such a fall."""
        moved_start_s, moved_end_s = self._nearest(self._rises, start_s), self._nearest(self._falls, end_s)
        if moved_end_s - moved_start_s < _MIN_EVENT_S:
            return start_s, end_s
        return moved_start_s, moved_end_s

    def _nearest(self, jumps: Jumps, edge_s: float) -> float:
        first = max(0, int((edge_s - _REACH_S) / self._level_s))
        last = min(len(jumps), int((edge_s + _REACH_S) / self._level_s) + 2)
        if last <= first:
            return edge_s
        places = np.arange(first, last)
        nearness = np.exp(-0.5 * ((places * self._level_s - edge_s) / _NEAR_S) ** 2)
        best = int((jumps[first:last] * nearness).argmax())
        return float(places[best] * self._level_s) if jumps[first + best] >= _MIN_JUMP_DB else edge_s


def _jumps(levels: Array, side: int) -> tuple[Jumps, Jumps]:
    """How many dB the half of the bands that changes most rises, and falls, at each border of rows `[T + 1]`."""
    num_rows, num_bands = levels.shape
    sums = np.zeros((num_rows + 1, num_bands))
    np.cumsum(levels, axis=0, out=sums[1:])
    border = np.arange(num_rows + 1)
    before, after = np.maximum(border - side, 0), np.minimum(border + side, num_rows)
    jumps = (sums[after] - sums[border]) / np.maximum(after - border, 1)[:, None]
    jumps -= (sums[border] - sums[before]) / np.maximum(border - before, 1)[:, None]
    jumps[[0, -1]] = 0.0  # the recording's own ends
    half = -(-num_bands // 2)
    rises, falls = (np.sort(np.maximum(sign * jumps, 0), axis=1)[:, -half:].mean(axis=1) for sign in (1, -1))
    return rises.astype(np.float32), falls.astype(np.float32)
