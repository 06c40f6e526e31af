"""The windows nearest to a query, among millions, exact for the vectors as they are stored.

All windows are scored by one product in float16, which reads half of what float32 would. Those that may be among the
best, however that was rounded, are scored again in float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from clapboard.store.vectors import Vectors
from clapboard.suggest.scoring import Array

Rows = npt.NDArray[np.intp]

# A product of unit vectors is off by less than half of this: 2⁻¹¹ because the query is rounded, 2⁻¹¹ because the
# product is, and less than 2⁻¹¹ for what PyTorch adds up in float32.
_LARGEST_ERROR = 2**-8
_ROWS_AT_ONCE = 32_768  # few large products: on a busy machine, threads that meet often mostly wait for each other


def nearest(vectors: Vectors, query: Array, top: int, *, among: Rows | None = None) -> tuple[Rows, Array]:
    """The rows with the `top` largest cosines with the unit-norm query `[D]`, and the cosines, best first.

    `among` restricts the search to some rows. Equal cosines come in the order of their rows.
    """
    top = min(top, len(vectors) if among is None else len(among))
    if not top:
        return np.zeros(0, np.intp), np.zeros(0, np.float32)
    rounded = torch.mv(torch.from_numpy(vectors.matrix), torch.from_numpy(query).half()).float()  # [N]
    if among is not None:
        rounded = rounded[torch.from_numpy(among)]
    least = torch.topk(rounded, top, sorted=False).values.min() - _LARGEST_ERROR
    rows = torch.nonzero(rounded >= least).flatten().numpy()
    rows = rows if among is None else among[rows]
    cosines = np.concatenate(
        [
            vectors.matrix[rows[start : start + _ROWS_AT_ONCE]].astype(np.float32) @ query
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ]
    )
    order = np.argsort(-cosines, kind="stable")[:top]
    return rows[order], cosines[order]
