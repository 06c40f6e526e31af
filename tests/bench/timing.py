"""Comparing by the clock: everything in turns, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_seconds(works: Mapping[K, Callable[[], object]], rounds: int) -> dict[K, float]:
    """Of each work its median over the rounds, in each of which every one takes its turn; one round before warms up."""
    return medians({key: lambda work=work: seconds_of(work) for key, work in works.items()}, rounds, warm_ups=1)


def medians(measures: Mapping[K, Callable[[], float]], rounds: int, *, warm_ups: int) -> dict[K, float]:
    """Of each measure the median of what it returned, taken in turns; the first rounds don't count."""
    found: dict[K, list[float]] = {key: [] for key in measures}
    for number in range(warm_ups + rounds):
        for key, measure in measures.items():
            value = measure()
            if number >= warm_ups:
                found[key].append(value)
    return {key: statistics.median(values) for key, values in found.items()}
