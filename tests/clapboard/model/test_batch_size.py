from __future__ import annotations

import pytest

from clapboard.model.batch_size import MOST_PATIENCE, FittingBatchSize, fastest_batch_size


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


def batches_until_more_is_tried(batch: FittingBatchSize) -> int:
    size, num_batches = batch.size, 0
    while batch.size == size:
        batch.fitted(size)
        num_batches += 1
    return num_batches


def test_after_memory_ran_out_more_is_tried_again_and_ever_more_seldom_where_it_does_not_fit() -> None:
    batch = FittingBatchSize(32)
    patience = []
    for _ in range(12):
        batch.shrink(batch.size)
        assert batch.size == 16
        batch.fitted(3)  # a rest of a batch shows nothing
        patience.append(batches_until_more_is_tried(batch))
        assert batch.size == 32
    assert patience[:3] == [16, 32, 64]
    assert patience[-1] == MOST_PATIENCE
    for _ in range(10_000):
        batch.fitted(32)
    assert batch.size == 32
