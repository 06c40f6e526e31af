"""A bounded cache of computed values."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Memory(Generic[Key, Value]):
    """The `capacity` most recently used values, by key. Threads may share it.

    Copy arrays that are views, such as a row, before keeping them: a view keeps the whole array in memory.
    """

    def __init__(self, capacity: int = 1_000) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, compute: Callable[[], Value]) -> Value:
        """The remembered value, or else what `compute` returns."""
        for remembered in self.known([key]).values():
            return remembered
        computed = compute()
        self.keep({key: computed})
        return computed

    def known(self, keys: Iterable[Key]) -> dict[Key, Value]:
        """The remembered values of these keys; keys without one are left out."""
        with self._lock:
            remembered = {key: self._values[key] for key in keys if key in self._values}
            for key in remembered:
                self._values.move_to_end(key)
        return remembered

    def keep(self, computed: Mapping[Key, Value]) -> None:
        """Remember these values, and forget the least recently used ones."""
        with self._lock:
            self._values.update(computed)
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)
