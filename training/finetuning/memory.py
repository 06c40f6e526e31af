"""Work in portions that the device's memory can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from clapboard.errors import TrainingError

_Result = TypeVar("_Result")


class Portion:
    """How many windows go through the model at once. Where memory runs out, half as many do, from then on."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, attempt: Callable[[int], _Result]) -> _Result:
        """What `attempt(size)` gives, tried with smaller sizes as long as memory runs out.

        Raises `TrainingError` if not even one window fits.
        """
        while True:
            try:
                return attempt(self.size)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            if self.size == 1:
                raise TrainingError(
                    "There is too little memory to train on one window: free some, or set CLAPBOARD_DEVICE to another "
                    "device."
                )
            self.size //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _is_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)
