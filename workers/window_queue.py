"""The bounded queue between decoding and forward pass: two lanes, from which batches are formed as windows arrive."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

URGENT_BATCHES = 3
"""After so many batches that urgent windows began, one is begun by the others, where any wait."""


class Entry(Protocol):
    """A window, or the word that a recording's last one has passed, for which there is always room."""

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it."""

    @property
    def is_window(self) -> bool:
        """Whether it takes up room, in the queue and in a batch."""

    @property
    def group(self) -> object:
        """A batch holds entries of one group: its encoder."""

    @property
    def batch_size(self) -> int:
        """How many windows of the group a batch holds at most."""


AnyEntry = TypeVar("AnyEntry", bound=Entry)


@dataclass
class _Lane(Generic[AnyEntry]):
    entries: deque[tuple[float, AnyEntry]] = field(default_factory=deque)  # since when, what
    num_windows: int = 0

    def add(self, entry: AnyEntry) -> None:
        self.entries.append((time.monotonic(), entry))
        self.num_windows += entry.is_window

    def take(self, group: object, num_windows: int) -> list[AnyEntry]:
        """The oldest entries, up to so many windows of the group, and up to the first of another group."""
        taken = []
        while self.entries and self.entries[0][1].group == group:
            entry = self.entries[0][1]
            if entry.is_window and num_windows == 0:
                break
            self.entries.popleft()
            self.num_windows -= entry.is_window
            num_windows -= entry.is_window
            taken.append(entry)
        return taken


class WindowQueue(Generic[AnyEntry]):
    """Urgent windows go first without starving the others, which get a quarter of each batch and begin every fourth."""

    def __init__(self, capacity: int, delay_s: float) -> None:
        """`capacity` in windows a lane; `delay_s` is how long an entry waits at most for its batch to fill up."""
        self._capacity = capacity
        self._delay_s = delay_s
        self._urgent: _Lane[AnyEntry] = _Lane()
        self._others: _Lane[AnyEntry] = _Lane()
        self._begun_by_urgent = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, entry: AnyEntry) -> bool:
        """Add the entry once its lane has room; False if the queue was closed meanwhile."""
        lane = self._urgent if entry.urgent else self._others
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not entry.is_window or lane.num_windows < self._capacity)
            if not self._closed:
                lane.add(entry)
            self._changed.notify_all()
            return not self._closed

    def take(self) -> list[AnyEntry]:
        """The next batch, once it is full or its oldest entry has waited enough; empty when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._urgent.entries or self._others.entries)
            while not self._closed and (left_s := self._seconds_to_fill()) > 0:
                self._changed.wait(left_s)
            taken = [] if self._closed else self._next()
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Take no more and give no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _seconds_to_fill(self) -> float:
        """How long the next batch may still wait; 0 when it is full."""
        waiting = [lane.entries[0] for lane in (self._urgent, self._others) if lane.entries]
        since, oldest = min(waiting, key=lambda entry: entry[0])
        full = self._urgent.num_windows + self._others.num_windows >= oldest.batch_size
        return 0.0 if full else since + self._delay_s - time.monotonic()

    def _next(self) -> list[AnyEntry]:
        lanes = [lane for lane in (self._urgent, self._others) if lane.entries]
        if len(lanes) == 2 and self._begun_by_urgent >= URGENT_BATCHES:
            lanes.reverse()
        first = lanes[0]
        self._begun_by_urgent = self._begun_by_urgent + 1 if first is self._urgent else 0
        group, size = first.entries[0][1].group, first.entries[0][1].batch_size
        of_other = min(lanes[-1].num_windows, size // 4) if len(lanes) == 2 else 0
        taken = first.take(group, size - of_other)
        for lane in lanes[1:]:
            taken += lane.take(group, size - _num_windows(taken))
        return taken


def _num_windows(entries: list[AnyEntry]) -> int:
    return sum(entry.is_window for entry in entries)
