"""The batch size for a device: the smallest one at which it is about as fast as it can be, while that fits."""

from __future__ import annotations

from collections.abc import Callable

WORTHWHILE = 1.05
"""A batch of twice the size is worthwhile if it embeds this many times as many windows a second."""


def fastest_batch_size(seconds: Callable[[int], float | None], *, first: int = 16, most: int = 512) -> int:
    """The batch size: `first`, doubled as long as that is worthwhile and it is below `most`.

    `seconds` measures how long a batch of a given size takes; None if the device's memory can't hold it.
    """
    size, size_s = first, seconds(first)
    while size_s is not None and size < most:
        double_s = seconds(2 * size)
        if double_s is None or 2 * size_s < WORTHWHILE * double_s:
            break
        size, size_s = 2 * size, double_s
    return size


FIRST_PATIENCE, MOST_PATIENCE = 16, 4_096


class FittingBatchSize:
    """How many windows go through a device at once: fewer after memory ran out, and more again once that has passed.

    After so many batches of the size that fits (twice as many each time that memory runs out, up to 4,096) twice the
    size is tried, up to the one it began with.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._most = size
        self._patience = FIRST_PATIENCE // 2
        self._num_fitted = 0

    def shrink(self, num_windows: int) -> None:
        """Count a batch of so many windows that didn't fit: half of it may."""
        self.size = max(1, num_windows // 2)
        self._patience = min(2 * self._patience, MOST_PATIENCE)
        self._num_fitted = 0

    def fitted(self, num_windows: int) -> None:
        """Count a batch of so many windows that did fit."""
        if num_windows < self.size or self.size >= self._most:
            return  # it says nothing of more
        self._num_fitted += 1
        if self._num_fitted >= self._patience:
            self.size = min(2 * self.size, self._most)
            self._num_fitted = 0
