"""Splits work into portions that fit into the device's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from clapboard.errors import TrainingError
from clapboard.model.batch_size import FittingBatchSize

_Result = TypeVar("_Result")


class Portion:
    """How many windows go through the model at once: fewer after memory ran out, and more again later."""

    def __init__(self, size: int) -> None:
        self._batch = FittingBatchSize(size)

    @property
    def size(self) -> int:
        """How many do at the moment."""
        return self._batch.size

    def run(self, attempt: Callable[[int], _Result]) -> _Result:
        """Returns `attempt(size)`, retried with half the size as long as memory runs out.

        Raises `TrainingError` if not even one window fits.
        """
        while True:
            try:
                result = attempt(self.size)
                self._batch.fitted(self.size)
                return result
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            if self.size == 1:
                raise TrainingError(
                    "There is too little memory to train on one window: free some, or set CLAPBOARD_DEVICE to another "
                    "device."
                )
            self._batch.shrink(self.size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _is_out_of_memory(error: BaseException) -> bool:
    # On CPUs torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
