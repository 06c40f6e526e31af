from __future__ import annotations

import pytest

from clapboard.model.batch_size import fastest_batch_size


@pytest.mark.parametrize(
    ("fixed_s", "room", "expected"),
    [
        (0.0, 10_000, 16),  # twice the windows take twice the time: nothing to win
        (0.020, 10_000, 256),  # what a batch costs by itself is spread, until the next doubling wins less than 5 %
        (0.050, 100, 64),  # the device holds no more
        (0.050, 10, 16),  # not even the least: the encoder halves it when it is used
        (1e9, 10_000, 512),  # as many as there may be
    ],
)
def test_a_batch_grows_while_that_makes_it_faster(fixed_s: float, room: int, expected: int) -> None:
    tried = []

    def seconds(size: int) -> float | None:
        tried.append(size)
        return fixed_s + 0.001 * size if size <= room else None

    assert fastest_batch_size(seconds) == expected
    assert tried == sorted(set(tried))
