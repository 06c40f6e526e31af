"""Text search among a million windows, beside one float32 product by numpy over the same vectors."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from clapboard.search.nearest import nearest
from clapboard.store.vectors import WINDOW, Vectors
from clapboard.suggest.scoring import Array

_TOP = 20
_ROWS_AT_ONCE = 20_000


def search_seconds(*, num_windows: int, rounds: int, dim: int = 512) -> tuple[float, float, int, int]:
    """Median seconds of a search for the nearest windows and of `matrix @ query`, and the bytes of either's vectors.

    Both have all cores. The peer stops at the scores; ours finds the best of them too.
    """
    num_threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(cores, "blas"):
        torch.set_num_threads(cores)
        vectors, matrix = _fill(Path(folder), num_windows, dim)
        ours, peer = [], []
        for round_number in range(rounds + 1):
            query = matrix[round_number].copy()
            began = time.perf_counter()
            rows, _ = nearest(vectors, query, _TOP)
            searched = time.perf_counter()
            scores = matrix @ query
            ended = time.perf_counter()
            if set(rows.tolist()) - set(np.argsort(-scores)[: 2 * _TOP].tolist()):
                raise RuntimeError("the search found others than the product")
            if round_number:
                ours.append(searched - began)
                peer.append(ended - searched)
        torch.set_num_threads(num_threads)
        return statistics.median(ours), statistics.median(peer), vectors.matrix.nbytes, matrix.nbytes


def _fill(folder: Path, num_windows: int, dim: int) -> tuple[Vectors, Array]:
    """Random unit-norm vectors, as a mapped file in float16 and in memory in float32."""
    halves = np.memmap(folder / "vectors", np.float16, "w+", shape=(num_windows, dim))
    matrix = np.empty((num_windows, dim), np.float32)
    rng = np.random.default_rng(0)
    for start in range(0, num_windows, _ROWS_AT_ONCE):
        block = rng.standard_normal((min(_ROWS_AT_ONCE, num_windows - start), dim), np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        matrix[start : start + len(block)] = halves[start : start + len(block)] = block
    return Vectors(halves, np.zeros(num_windows, WINDOW)), matrix
