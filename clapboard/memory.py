"""What was computed lately, by what it was computed from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from clapboard.scoring import Array

Key = TypeVar("Key", bound=Hashable)


class Memory(Generic[Key]):
    """The arrays that were used last, `capacity` of them. Threads may share it."""

    def __init__(self, capacity: int = 1_000) -> None:
        self._capacity = capacity
        self._held: OrderedDict[Key, Array] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, key: Key, compute: Callable[[], Array]) -> Array:
        """What is remembered under the key, or else what `compute` gives now."""
        for held in self.known([key]).values():
            return held
        computed = compute()
        self.keep({key: computed})
        return computed

    def known(self, keys: Iterable[Key]) -> dict[Key, Array]:
        """Those of the keys under which something is remembered, with what it is."""
        with self._turn:
            found = {key: self._held[key] for key in keys if key in self._held}
            for key in found:
                self._held.move_to_end(key)
        return found

    def keep(self, computed: Mapping[Key, Array]) -> None:
        """Remember these, and forget what was used least lately."""
        with self._turn:
            self._held.update(computed)
            while len(self._held) > self._capacity:
                self._held.popitem(last=False)
