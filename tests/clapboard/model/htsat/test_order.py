from __future__ import annotations

import pytest
import torch

from clapboard.model.htsat.order import Rearrangement, StageOrder, stage_orders
from tests.support.grids import numbered

CPU = torch.device("cpu")
SIDE, GROUP_SIDE = 32, 8


@pytest.fixture(scope="module")
def orders() -> list[StageOrder]:
    return stage_orders(SIDE, GROUP_SIDE, [2, 3], CPU)


def test_a_stages_first_block_needs_no_rearrangement(orders: list[StageOrder]) -> None:
    assert orders[0].blocks[0].arrival is None
    assert orders[1].blocks[0].arrival is None
    assert [len(order.blocks) for order in orders] == [2, 3]


def test_shifted_groups_hold_the_neighbours_that_swin_gives_them(orders: list[StageOrder]) -> None:
    arrival = orders[0].blocks[1].arrival
    assert arrival is not None
    shifted = arrival(numbered(SIDE, GROUP_SIDE))[:, 0, :, 0].long()  # [G, 64] places
    rolled = torch.arange(SIDE * SIDE).view(SIDE, SIDE).roll((-4, -4), (0, 1))
    expected = {
        tuple(rolled[row : row + 8, column : column + 8].flatten().tolist())
        for row in range(0, SIDE, 8)
        for column in range(0, SIDE, 8)
    }
    assert {tuple(group.tolist()) for group in shifted} == expected


def test_tokens_brought_together_by_a_shift_dont_attend_to_each_other(orders: list[StageOrder]) -> None:
    block = orders[0].blocks[1]
    assert block.arrival is not None
    places = block.arrival(numbered(SIDE, GROUP_SIDE))[:, 0, :, 0].long()
    assert sum(border.num_groups for border in block.borders) == len(places) == 16
    start = 0
    for border in block.borders:
        for group in places[start : start + border.num_groups]:
            rows, columns = group // SIDE, group % SIDE
            near = ((rows[:, None] - rows).abs() < 8) & ((columns[:, None] - columns).abs() < 8)
            masked = torch.zeros_like(near) if border.mask is None else border.mask < 0
            torch.testing.assert_close(masked, ~near)
        start += border.num_groups


def test_merging_brings_four_neighbours_together_column_by_column(orders: list[StageOrder]) -> None:
    arrival, merging = orders[0].blocks[1].arrival, orders[0].merging
    assert arrival is not None
    assert merging is not None
    four = merging(arrival(numbered(SIDE, GROUP_SIDE)))[0, 0, :8, 0].tolist()
    assert four == [0, 32, 1, 33, 2, 34, 3, 35]
    assert orders[1].merging is None


def test_a_grid_of_one_group_isnt_shifted() -> None:
    (order,) = stage_orders(8, 8, [2], CPU)
    assert [block.arrival for block in order.blocks] == [None, None]
    assert [block.borders[0].mask for block in order.blocks] == [None, None]


def test_every_window_of_a_batch_is_rearranged_alike_and_gradients_find_their_way_back() -> None:
    generator = torch.Generator().manual_seed(3)
    source = torch.randperm(4 * 6, generator=generator).view(4, 6)
    values = torch.randn(4, 3, 6, 2, generator=generator, requires_grad=True)
    found = Rearrangement(source)(values)
    expected = values.transpose(0, 1).flatten(1, 2)[:, source.flatten()].unflatten(1, (4, 6)).transpose(0, 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(Rearrangement(source)(values.detach()), expected.detach())
    weights = torch.randn(found.shape, generator=generator)
    (gradient,) = torch.autograd.grad((found * weights).sum(), values)
    (reference,) = torch.autograd.grad((expected * weights).sum(), values)
    torch.testing.assert_close(gradient, reference)
