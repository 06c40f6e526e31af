"""How fast work went in its last minutes, and how long it takes yet: nothing is said that wasn't measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

RATE_OVER_S = 120.0
"""Rates are those of so many last seconds."""

SAY_EVERY_S = 1.0


class Pace:
    """Follows one piece of work and says how far it is: after a second, and then once a second at most."""

    def __init__(self, what: str, total: int | None, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        """`what` is counted, in the plural; `total` is how many there will be, if anybody knows."""
        self._what = what
        self._total = total
        self._say = say
        self._clock = clock
        self._num_done = 0
        self._samples = deque([(clock(), 0)])
        self._said_at = self._samples[0][0]

    def advance(self, num: int = 1) -> None:
        """So many more are done."""
        self.reach(self._num_done + num)

    def reach(self, num_done: int) -> None:
        """So many are done by now."""
        self._num_done = num_done
        now = self._clock()
        if now < self._said_at + SAY_EVERY_S:
            return
        self._said_at = now
        self._samples.append((now, self._num_done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_OVER_S:
            self._samples.popleft()
        self._say(str(self))

    def __str__(self) -> str:
        """Such as «3,000 of 10,000 tasks, 40 s left»."""
        if self._total is None or self._num_done > self._total:
            return f"{self._num_done:,} {self._what}"
        left_s = time_left_s(self._total - self._num_done, self._rate())
        said = f"{self._num_done:,} of {self._total:,} {self._what}"
        return said if left_s is None else f"{said}, {duration(left_s)} left"

    def _rate(self) -> float | None:
        """Pieces per second; None before there are two moments to compare."""
        (since, num_before), (now, num_done) = self._samples[0], self._samples[-1]
        return (num_done - num_before) / (now - since) if now > since else None


def time_left_s(num_left: int, per_s: float | None) -> float | None:
    """Seconds until nothing is left at that rate; None if the rate isn't known, or nothing moves."""
    if not num_left:
        return 0.0
    return num_left / per_s if per_s else None


def duration(seconds: float) -> str:
    """The time in one unit, such as «90 s» or «3 h»: the largest of which there are two."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
