"""Tokens that say where they are on their grid."""

from __future__ import annotations

import torch


def numbered(side: int, group_side: int) -> torch.Tensor:
    """`[G, 1, S, 1]`: each token of a `side` × `side` grid, in plain groups, is its place on it, row by row."""
    grid = torch.arange(side * side, dtype=torch.float32).view(side, side)
    groups = grid.unfold(0, group_side, group_side).unfold(1, group_side, group_side)
    return groups.reshape(-1, 1, group_side**2, 1)
