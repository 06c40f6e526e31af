"""The batch size for a device: the smallest one at which it is about as fast as it can be."""

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
