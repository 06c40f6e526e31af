"""How many windows to put through a device at once: as few as make it as fast as it gets."""

from __future__ import annotations

from collections.abc import Callable

WORTHWHILE = 1.05
"""A batch twice as large has to embed so many times as many windows a second."""


def fastest_batch_size(seconds: Callable[[int], float | None], *, first: int = 16, most: int = 512) -> int:
    """The batch size, from `first` on doubled as long as that is worthwhile.

    `seconds` measures a batch of so many windows; None if the device's memory can't hold it.
    """
    size, spent = first, seconds(first)
    while spent is not None and size < most:
        twice = seconds(2 * size)
        if twice is None or 2 * spent < WORTHWHILE * twice:
            break
        size, spent = 2 * size, twice
    return size
