"""The measured rate of a piece of work, and the time it has left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

RATE_OVER_S = 120.0
"""A rate is the average over this many past seconds."""

REPORT_EVERY_S = 1.0


class Pace:
    """The progress of one piece of work, reported once a second at most, and not in its first second."""

    def __init__(
        self,
        noun: str,
        total: int | Callable[[], int] | None,
        report: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """`noun` names what is counted, in the plural; `total` is their number, if known, or counts them."""
        self._noun = noun
        self._total = total
        self._report = report
        self._clock = clock
        self._num_done = 0
        self._samples = deque([(clock(), 0)])
        self._reported_at = self._samples[0][0]

    def advance(self, num: int = 1) -> None:
        """Count `num` more as done."""
        self.reach(self._num_done + num)

    def reach(self, num_done: int) -> None:
        """Count `num_done` in all as done."""
        self._num_done = num_done
        now = self._clock()
        if now < self._reported_at + REPORT_EVERY_S:
            return
        self._reported_at = now
        self._samples.append((now, self._num_done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_OVER_S:
            self._samples.popleft()
        self._report(str(self))

    def __str__(self) -> str:
        """Such as «3,000 of 10,000 tasks, 40 s left»."""
        if callable(self._total):
            self._total = self._total()
        if self._total is None or self._num_done > self._total:
            return f"{self._num_done:,} {self._noun}"
        left_s = time_left_s(self._total - self._num_done, self._rate())
        progress = f"{self._num_done:,} of {self._total:,} {self._noun}"
        return progress if left_s is None else f"{progress}, {duration(left_s)} left"

    def _rate(self) -> float | None:
        """The number done per second; None as long as only one time was sampled."""
        (since, num_before), (now, num_done) = self._samples[0], self._samples[-1]
        return (num_done - num_before) / (now - since) if now > since else None


def time_left_s(num_left: int, per_s: float | None) -> float | None:
    """Seconds until nothing is left at this rate; None if the rate is unknown or zero."""
    if not num_left:
        return 0.0
    return num_left / per_s if per_s else None


def duration(seconds: float) -> str:
    """The time in one unit, such as «90 s» or «3 h»: the largest unit of which it is at least two."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
