"""What a case of `make scale` is: a name, and a function that measures figures with goals at a size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much there is."""

    num_tasks: int
    num_jobs: int


@dataclass(frozen=True)
class Measured:
    """A figure and the most that it may be."""

    name: str
    value: float
    goal: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached."""
        return self.value <= self.goal


@dataclass(frozen=True)
class Case:
    """Several figures that are measured in one set-up, one after the other."""

    name: str
    measure: Callable[[Size], Iterator[Measured]]
