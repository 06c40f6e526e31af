from __future__ import annotations

import pytest
import torch

from clapboard.errors import TrainingError
from training.finetuning.memory import Portion


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        MemoryError(),
    ],
)
def test_where_memory_runs_out_half_as_many_are_tried(error: Exception) -> None:
    tried = []

    def attempt(size: int) -> str:
        tried.append(size)
        if size > 4:
            raise error
        return f"done by {size}"

    portion = Portion(16)
    assert portion.run(attempt) == "done by 4"
    assert portion.run(attempt) == "done by 4"
    assert tried == [16, 8, 4, 4]


def test_a_device_without_room_for_one_window_is_an_error_that_says_so() -> None:
    def attempt(_: int) -> None:
        raise MemoryError

    with pytest.raises(TrainingError, match="too little memory to train on one window"):
        Portion(3).run(attempt)


def test_other_failures_are_not_taken_for_a_lack_of_memory() -> None:
    def attempt(_: int) -> None:
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        Portion(4).run(attempt)
