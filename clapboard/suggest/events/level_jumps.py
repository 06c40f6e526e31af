"""Where a recording becomes louder or quieter: the moments at which a sound is likely to begin or end.

A frame lasts half a second, and what CLAP says about it leaks into its neighbours. When a sound begins and ends is
plain in the level of the bands that it fills.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clapboard.suggest.scoring import Array

_SIDE_S = 0.4  # compared before and after a jump
_REACH_S = 0.6
_NEAR_S = 0.3  # at this distance a jump counts e^(-1/2) as much as at the edge itself
_MIN_JUMP_DB = 2.0
_MIN_EVENT_S = 0.1
_NEAR_SHARE = 0.5  # of a jump's size, at moments near it

Jumps = npt.NDArray[np.float64]


class LevelJumps:
    """The jumps in a recording's levels `[T, B]` in dB, a row for each `level_s` seconds."""

    def __init__(self, levels: Array, level_s: float) -> None:
        self._level_s = level_s
        side = max(1, round(_SIDE_S / level_s))
        rises, falls = _jumps(levels, side)
        self._rises, self._falls = _peaks(rises, side // 2), _peaks(falls, side // 2)
        self._near_rises = np.maximum(_NEAR_SHARE * rises, self._rises)
        self._near_falls = np.maximum(_NEAR_SHARE * falls, self._falls)

    @property
    def moments_s(self) -> npt.NDArray[np.float64]:
        """The moments of the greatest rises and falls, in order."""
        return np.flatnonzero((self._rises > 0) | (self._falls > 0)).astype(np.float64) * self._level_s

    def at(self, moments_s: npt.NDArray[np.float64]) -> tuple[Jumps, Jumps]:
        """How many dB the level rises, and falls, at each of the moments; less where it does more so nearby."""
        places = np.clip(np.rint(moments_s / self._level_s).astype(int), 0, len(self._rises) - 1)
        return self._near_rises[places], self._near_falls[places]

    def moved(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The event, its start at the rise near it that counts most, nearer ones more, and its end at such a fall."""
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
        return float(places[best] * self._level_s) if jumps[first + best] > 0 else edge_s


def _peaks(jumps: Jumps, reach: int) -> Jumps:
    """The jumps that are the greatest among their neighbours up to `reach` places away, and 0 elsewhere."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(jumps, reach), 2 * reach + 1)
    return np.where((jumps >= _MIN_JUMP_DB) & (around.argmax(axis=1) == reach), jumps, 0.0)


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
    return rises, falls
