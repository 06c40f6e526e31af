"""The windows nearest to a query, among millions, exact for the vectors as they are stored.

Vectors lie in float16, half of float32's memory, and are multiplied in float32: block by block they are converted into
a buffer that stays in the processor's cache. So memory is read once, in halves, and nothing depends on whether a
processor multiplies float16 itself, which takes some of them longer than float32.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController

from clapboard.store.vectors import Vectors
from clapboard.suggest.scoring import Array

Rows = npt.NDArray[np.intp]

_BLOCK_BYTES = 1 << 21  # of the float32 buffer: about a core's own cache
_LEAST_ROWS_A_THREAD = 16_384


def nearest(vectors: Vectors, query: Array, top: int, *, among: Rows | None = None) -> tuple[Rows, Array]:
    """The rows with the `top` largest cosines with the unit-norm query `[D]`, and the cosines, best first.

    `among` restricts the search to some rows, ascending. Equal cosines come in the order of their rows.
    """
    num_rows = len(vectors) if among is None else len(among)
    top = min(top, num_rows)
    if not top:
        return np.zeros(0, np.intp), np.zeros(0, np.float32)
    num_threads = max(1, min(torch.get_num_threads(), num_rows // _LEAST_ROWS_A_THREAD))
    bounds = np.linspace(0, num_rows, num_threads + 1).astype(np.intp).tolist()

    def nearest_between(start: int, stop: int) -> tuple[Rows, Array]:
        return _nearest_between(vectors.matrix, query, top, start, stop, among)

    with ThreadPoolExecutor(num_threads) as pool:
        parts = [*pool.map(nearest_between, bounds[:-1], bounds[1:])]
    rows, cosines = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(-cosines, kind="stable")[:top]
    return rows[order], cosines[order]


def _nearest_between(
    matrix: npt.NDArray[np.float16], query: Array, top: int, start: int, stop: int, among: Rows | None
) -> tuple[Rows, Array]:
    """The `top` nearest of the rows from `start` to before `stop`, counted in `among`, and their cosines, by row.

    Those that equal the last of them come with them. All is computed in this thread, since threads of torch's or of a
    BLAS would meet after every block. A row's product is the same wherever it lies.
    """
    halves = torch.from_numpy(matrix)
    num_rows = max(1, _BLOCK_BYTES // (4 * len(query)))
    buffer = torch.empty(num_rows, len(query))
    cosines = np.empty(stop - start, np.float32)
    torch.get_num_threads()  # has torch set this thread's number before that is limited
    with _openmp().limit(limits=1, user_api="openmp"):
        for first in range(start, stop, num_rows):
            last = min(first + num_rows, stop)
            block = buffer[: last - first]
            block.copy_(halves[first:last] if among is None else _picked(matrix, among[first:last]))
            np.vecdot(block.numpy(), query, out=cosines[first - start : last - start])
    least = np.partition(cosines, -top)[-top] if top < len(cosines) else -np.inf
    best = np.flatnonzero(cosines >= least)
    return (start + best if among is None else among[start + best]), cosines[best]


def _picked(matrix: npt.NDArray[np.float16], rows: Rows) -> torch.Tensor:
    """The rows of the matrix: a view where they follow each other."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return torch.from_numpy(matrix[rows[0] : rows[-1] + 1])
    return torch.from_numpy(matrix[rows])


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController()
