"""A process that rests gives its freed memory back, once for each busy stretch."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np

from clapboard.freed_memory import FreedMemory


class Clocks:
    def __init__(self) -> None:
        self.now = self.cpu = 100.0
        self.num_given_back = 0
        self.memory = FreedMemory(self._count, clock=lambda: self.now, cpu_clock=lambda: self.cpu)

    def _count(self) -> None:
        self.num_given_back += 1

    def seconds(self, number: int, *, cpu_s: float) -> int:
        """After so many seconds with a look at each, how often memory was given back in all."""
        for _ in range(number):
            self.now += 1
            self.cpu += cpu_s
            self.memory.look()
        return self.num_given_back


def test_once_after_each_busy_stretch_and_not_in_it() -> None:
    clocks = Clocks()
    assert clocks.seconds(60, cpu_s=0.001) == 0  # it hasn't done anything
    assert clocks.seconds(60, cpu_s=0.9) == 0
    assert clocks.seconds(4, cpu_s=0.01) == 0
    assert clocks.seconds(2, cpu_s=0.01) == 1
    assert clocks.seconds(30, cpu_s=0.001) == 1
    assert clocks.seconds(2, cpu_s=1.9) == 1
    assert clocks.seconds(10, cpu_s=0.0) == 2
    clocks.memory.note()
    assert clocks.seconds(3, cpu_s=0.9) == 3  # at once, however busy it is


def test_what_was_freed_leaves_the_process() -> None:
    small = [np.ones(2_000) for _ in range(8_000)]  # 128 MB in blocks that glibc takes from its heap
    kept = small[::500]
    del small
    before = _resident_bytes()
    memory = FreedMemory(clock=iter((0.0, 1.0, 99.0)).__next__, cpu_clock=iter((0.0, 9.0, 9.0)).__next__)
    memory.look()
    memory.look()
    assert before - _resident_bytes() > 50_000_000
    assert len(kept) == 16


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
