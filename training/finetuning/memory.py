"""Splits work into portions that fit into the device's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from clapboard.errors import TrainingError

_Result = TypeVar("_Result")


class Portion:
    """How many windows go through the model at once. The size is halved for good each time memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, attempt: Callable[[int], _Result]) -> _Result:
        """Returns `attempt(size)`, retried with half the size as long as memory runs out.

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
    # On CPUs torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
