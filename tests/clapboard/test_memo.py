from __future__ import annotations

import numpy as np

from clapboard.memo import Memory
from clapboard.suggest.scoring import Array


def test_the_memory_forgets_what_was_used_least_lately() -> None:
    memory: Memory[str, Array] = Memory(capacity=2)
    asked = []

    def hear(key: str) -> Array:
        asked.append(key)
        return np.zeros(1, np.float32)

    for key in ("a", "b", "a", "c", "a", "b"):
        memory.get(key, lambda key=key: hear(key))  # type: ignore[misc]
    assert asked == ["a", "b", "c", "b"]


def test_several_may_be_kept_and_asked_for_at_once() -> None:
    memory: Memory[int, Array] = Memory(capacity=2)
    memory.keep({key: np.full(1, key, np.float32) for key in range(3)})
    assert {key: value.item() for key, value in memory.known([2, 1, 0]).items()} == {2: 2.0, 1: 1.0}
    memory.keep({3: np.zeros(1, np.float32)})
    assert list(memory.known([1, 2, 3])) == [1, 3]  # 2 was asked for before 1
