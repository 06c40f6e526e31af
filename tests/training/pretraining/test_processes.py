from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from clapboard.errors import TrainingError
from training.pretraining.processes import ALONE, Processes


@dataclass(frozen=True)
class BesideOneAtStep(Processes):
    """A process whose neighbour goes on from a step of its own."""

    other: int = 0

    def gather_items(self, items: Sequence[int]) -> list[int]:
        return [*items, self.other]


def test_processes_that_would_begin_at_different_steps_are_refused() -> None:
    ALONE.require_same_step(7)
    BesideOneAtStep(other=7).require_same_step(7)
    with pytest.raises(TrainingError, match=r"different steps, 0 to 7: .* on a disk that all of them share"):
        BesideOneAtStep(other=0).require_same_step(7)


def test_a_process_alone_keeps_its_device() -> None:
    assert Processes.join(torch.device("cuda:1")) == (ALONE, torch.device("cuda:1"))
