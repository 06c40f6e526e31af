"""The order of HTSAT's tokens: by square groups of neighbours on a grid, shifted by half a group in every other block.

These are the windows of Swin (Liu et al. 2021, arXiv 2103.14030, section 3.2). A group has S = 64 tokens, 8 × 8, unless
a checkpoint's config says otherwise. All of this is index arithmetic, done once; a `Rearrangement` then brings tokens
from one order into the next. «Places» are positions on the grid, counted row by row.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_STRIPS = 4  # that the image is made of, see `image`
_MASKED = -100.0  # as in the reference: after softmax, e⁻¹⁰⁰ is 0


@dataclass(frozen=True, eq=False)
class Border:
    """Consecutive groups with the same mask `[S, S]`, which is added to their scores; None if all are neighbours."""

    num_groups: int
    mask: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Rearrangement:
    """A permutation: token `(g, s)` of the new order is the `source[g, s]`th of the old one, counted by groups."""

    source: torch.Tensor  # [G, S]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[G', B, S', C]` → `[G, B, S, C]`."""
        _, batch, group_size, channels = tokens.shape
        window = torch.arange(batch, device=tokens.device)[:, None]
        source = self.source[:, None]  # [G, 1, S]
        # Row numbers among the G' · B · S' tokens: [G, B, S], flattened.
        rows = ((source // group_size * batch + window) * group_size + source % group_size).flatten()
        shape = len(self.source), batch, self.source.shape[1], channels
        values = tokens.flatten(0, 2)
        if tokens.requires_grad:
            return _Permuted.apply(values, rows).view(shape)  # type: ignore[no-untyped-call]
        return values.index_select(0, rows).view(shape)


class _Permuted(torch.autograd.Function):
    """Rows in another order. Its gradient is a gather too, which is faster than `index_select`'s sum by rows."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows)
        return values.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (rows,) = ctx.saved_tensors
        inverse = torch.empty_like(rows)
        inverse[rows] = torch.arange(len(rows), device=rows.device)
        return gradients[0].index_select(0, inverse), None


@dataclass(frozen=True, eq=False)
class BlockOrder:
    """The order of a block's tokens: what brings them into it (None: they are in it), and the masks of its groups."""

    arrival: Rearrangement | None
    borders: Sequence[Border]


@dataclass(frozen=True, eq=False)
class StageOrder:
    """The orders of a stage's blocks, and what brings the tokens to be merged together, in the next stage's order."""

    blocks: Sequence[BlockOrder]
    merging: Rearrangement | None  # [g, 4 · S]; None for the last stage


def stage_orders(side: int, group_side: int, depths: Sequence[int], device: torch.device) -> list[StageOrder]:
    """The orders of stages with these numbers of blocks; the first one's tokens are a grid of `side` × `side`.

    Tokens come into each stage in groups that aren't shifted. `group_side`² tokens are a group.
    """
    orders: list[StageOrder] = []
    for depth in depths:
        places = _places(side, group_side, shift=0)
        blocks = []
        for block in range(depth):
            shift = group_side // 2 if block % 2 and side > group_side else 0
            new_places = _places(side, group_side, shift)
            arrival = None if torch.equal(new_places, places) else _rearrangement(places, new_places, device)
            blocks.append(BlockOrder(arrival, _borders(side, group_side, shift, device)))
            places = new_places
        is_last = len(orders) == len(depths) - 1
        merging = None if is_last else _rearrangement(places, _children(side, group_side), device)
        orders.append(StageOrder(blocks, merging))
        side //= 2
    return orders


def num_frames(side: int, depths: Sequence[int]) -> int:
    """How many steps of time the last stage tells apart, T, if the first one's grid is `side` × `side`."""
    return _STRIPS * (side >> (len(depths) - 1))


def frame_order(side: int, group_side: int, depths: Sequence[int], device: torch.device) -> Rearrangement:
    """What brings the last stage's tokens into the order of time: `[T, F]`, the F tokens of each step together.

    The grid holds the strips of the image below one another, so that time goes on from the right of one to the left of
    the next.
    """
    last_side = side >> (len(depths) - 1)
    is_shifted = depths[-1] % 2 == 0 and last_side > group_side
    places = _places(last_side, group_side, shift=group_side // 2 if is_shifted else 0)
    grid = torch.arange(last_side * last_side).view(_STRIPS, -1, last_side)  # [strip, frequency, across]
    return _rearrangement(places, grid.transpose(1, 2).flatten(0, 1), device)


def _rearrangement(places: torch.Tensor, new_places: torch.Tensor, device: torch.device) -> Rearrangement:
    """What brings tokens that lie at `places` into the order of `new_places`."""
    position = torch.empty(places.numel(), dtype=torch.long)
    position[places.flatten()] = torch.arange(places.numel())
    return Rearrangement(position[new_places].to(device))


def _places(side: int, group_side: int, shift: int) -> torch.Tensor:
    """The place on the grid, row by row, of each token of each group: `[G, S]`."""
    grid = torch.arange(side * side).view(side, side).roll((-shift, -shift), (0, 1))
    groups = grid.unfold(0, group_side, group_side).unfold(1, group_side, group_side).flatten(2)  # [down, across, S]
    if not shift:
        return groups.flatten(0, 1)
    # Groups that wrap around come last: the last column, the last row, and the corner.
    parts = (groups[:-1, :-1], groups[:-1, -1:], groups[-1:, :-1], groups[-1:, -1:])
    return torch.cat([part.flatten(0, 1) for part in parts])


def _borders(side: int, group_side: int, shift: int, device: torch.device) -> list[Border]:
    """The masks of groups, in the order of `_places`: tokens that only a shift brought together ignore each other."""
    inner = side // group_side - 1
    if not shift:
        return [Border((inner + 1) ** 2, None)]
    wraps = torch.arange(group_side) >= group_side - shift
    borders = [Border(inner * inner, None)]
    for wraps_down, wraps_right in ((False, True), (True, False), (True, True)):
        # A token's region, 0 to 3, by whether it came around the grid's lower edge, its right edge, or both.
        region = 2 * (wraps & wraps_down).long()[:, None] + (wraps & wraps_right).long()
        apart = region.flatten()[:, None] != region.flatten()  # [S, S]
        num_groups = (1 if wraps_down else inner) * (1 if wraps_right else inner)
        borders.append(Border(num_groups, torch.where(apart, _MASKED, 0.0).to(device)))
    return borders


def _children(side: int, group_side: int) -> torch.Tensor:
    """The places of the four tokens that merge into each one of the next stage, column by column: `[g, 4 · S]`."""
    grid = torch.arange(side * side).view(side, side)
    four = torch.stack([grid[row::2, column::2].flatten() for column, row in itertools.product(range(2), range(2))], -1)
    return four[_places(side // 2, group_side, shift=0)].flatten(1)
