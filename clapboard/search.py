"""A text or a clip → the windows of a project that sound most like it, among millions.

All windows are scored by one product in float16, which reads half of what float32 would; the best, with all that
rounding might have put behind them, are then scored again in float32, so that the answer is exact for the vectors as
they are stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from clapboard.audio import WINDOW_S
from clapboard.errors import NotFoundError
from clapboard.scoring import Array, mean_direction
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from clapboard.store.vectors import Vectors

Rows = npt.NDArray[np.intp]

# A product of unit vectors is off by less than half of this: 2⁻¹¹ because the query is rounded, 2⁻¹¹ because the
# product is, and less than 2⁻¹¹ for what PyTorch adds up in float32.
_BLUR = 2**-8
_ROWS_AT_ONCE = 32_768  # few large products: on a busy machine, threads that meet often mostly wait for each other


@dataclass(frozen=True)
class Match:
    """A window of a task's audio and its cosine with what was asked for."""

    task: int
    start_s: float
    end_s: float
    score: float
    uri: str


class ProjectSearch:
    """Searches one project's windows under one encoder, as they stood when it was made."""

    def __init__(self, store: Store, vectors: Vectors, project: int) -> None:
        self._store = store
        self._vectors = vectors
        self._project = project
        self.rows = vectors.rows_of(store.tasks.contents(project))
        """The project's windows. Tasks that are set aside aren't among them: nobody shall be led to some of them."""

    def by_embedding(self, query: Array, top: int, *, but_not: str = "") -> list[Match]:
        """The `top` windows nearest to the unit-norm query `[D]`, best first, but none of the recording `but_not`."""
        rows = self.rows
        if but_not:
            rows = np.setdiff1d(rows, self._vectors.rows_of([but_not]), assume_unique=True)
        best, scores = nearest(self._vectors, query, top, among=rows)
        windows = self._vectors.windows[best]
        names = [sha256.hex().ljust(64, "0") for sha256 in windows["sha256"].tolist()]
        homes = self._homes(names)
        matches = [
            Match(task.task, *_span(index, recording.duration_s), score, task.uri)
            for name, index, score in zip(names, windows["index"].tolist(), scores.tolist(), strict=True)
            for task, recording in homes[name]
        ]
        return matches[:top]

    def like_task(self, task: int, encoder: Encoder, top: int) -> list[Match]:
        """The `top` windows nearest to the mean of the task's own, best first. Raises `NotFoundError`."""
        known = self._store.tasks.get(self._project, [task]).get(task)
        recordings = self._store.embeddings.recordings([known.uri_key]) if known else {}
        found = self._store.embeddings.get(list(recordings.values()), encoder.version, encoder.dtype)
        if not found:
            raise NotFoundError(
                f"Task {task} of project {self._project} isn't embedded: `clapboard jobs` says why, if it was queued."
            )
        ((sha256, windows),) = found.items()
        return self.by_embedding(mean_direction(windows), top, but_not=sha256)

    def _homes(self, sha256s: Sequence[str]) -> dict[str, list[tuple[KnownTask, Recording]]]:
        """The project's tasks by what they hold."""
        homes: dict[str, list[tuple[KnownTask, Recording]]] = defaultdict(list)
        for task, recording in self._store.tasks.holding(self._project, sorted(set(sha256s))):
            homes[recording.sha256].append((task, recording))
        return homes


def nearest(vectors: Vectors, query: Array, top: int, *, among: Rows | None = None) -> tuple[Rows, Array]:
    """The rows of the `top` largest cosines with the unit-norm query `[D]` and these, best first.

    `among` restricts it to some rows. Equal cosines come in the order of their rows.
    """
    num_rows = len(vectors) if among is None else len(among)
    top = min(top, num_rows)
    if not top:
        return np.zeros(0, np.intp), np.zeros(0, np.float32)
    blurred = torch.mv(torch.from_numpy(vectors.matrix), torch.from_numpy(query).half()).float()  # [N]
    if among is not None:
        blurred = blurred[torch.from_numpy(among)]
    least = torch.topk(blurred, top, sorted=False).values.min() - _BLUR
    rows = torch.nonzero(blurred >= least).flatten().numpy()
    rows = rows if among is None else among[rows]
    exact = np.concatenate(
        [
            vectors.matrix[rows[start : start + _ROWS_AT_ONCE]].astype(np.float32) @ query
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ]
    )
    order = np.argsort(-exact, kind="stable")[:top]
    return rows[order], exact[order]


def cosines(vectors: Vectors, queries: Array) -> Array:
    """`[N, Q]` of every row with unit-norm queries `[Q, D]`, such as class weights, block by block in float32."""
    matrix, columns = torch.from_numpy(vectors.matrix), torch.from_numpy(np.ascontiguousarray(queries)).T
    found, buffer = torch.empty(len(vectors), len(queries)), torch.empty(_ROWS_AT_ONCE, queries.shape[1])
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = matrix[start : start + _ROWS_AT_ONCE]  # [B, D]
        torch.mm(buffer[: len(block)].copy_(block), columns, out=found[start : start + len(block)])
    return found.numpy()


def _span(index: int, duration_s: float) -> tuple[float, float]:
    """From where to where a window of a recording goes, in seconds: `clapboard.audio.windows` is the rule."""
    end_s = min((index + 1) * WINDOW_S, duration_s)
    return max(0.0, end_s - WINDOW_S), end_s
