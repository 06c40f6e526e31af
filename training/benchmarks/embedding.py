"""Embeds a benchmark's clips, as in service, and counts those that are missing or unreadable."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from clapboard.errors import AudioError
from clapboard.model.clap import ClapEncoder
from clapboard.suggest.scoring import Array
from training.benchmarks.benchmark import BenchmarkClip
from training.benchmarks.cache import EmbeddingCache, FileState
from training.evaluation.listed_clips import Unreadable

_MAX_THREADS = 16
_AHEAD = 4  # files queued for each thread, so that none waits for the results before


@dataclass(frozen=True, eq=False)
class EmbeddedClips:
    """The readable clips with their embeddings `[N, D]`, and the clips that are missing or unreadable."""

    clips: tuple[BenchmarkClip, ...]
    embeddings: Array
    missing: tuple[str, ...]  # names of clips without a file
    unreadable: tuple[Unreadable, ...]


def embed_clips(
    encoder: ClapEncoder,
    clips: Sequence[BenchmarkClip],
    cache: EmbeddingCache,
    *,
    on_clip: Callable[[], None] = lambda: None,
) -> EmbeddedClips:
    """The clips in order with their embeddings, cached or new. `on_clip` is called after each clip.

    Raises `TrainingError` if the cache can't be used.
    """
    readable: list[BenchmarkClip] = []
    rows: list[Array] = []
    missing = []
    unreadable = []
    for clip, outcome in _in_order(encoder, clips, cache):
        if clip.path is None:
            missing.append(clip.name)
        elif isinstance(outcome, AudioError):
            unreadable.append(Unreadable(clip.path, str(outcome)))
        elif outcome is not None:
            readable.append(clip)
            rows.append(outcome)
        on_clip()
    embeddings = np.stack(rows) if rows else np.zeros((0, encoder.identity.dim), np.float32)
    return EmbeddedClips(tuple(readable), embeddings, tuple(missing), tuple(unreadable))


Outcome = Array | AudioError | None
"""A clip's embedding `[D]`, the error that prevented it, or None if the clip has no file."""


def _in_order(
    encoder: ClapEncoder, clips: Sequence[BenchmarkClip], cache: EmbeddingCache
) -> Iterator[tuple[BenchmarkClip, Outcome]]:
    """Each clip and its outcome, in order. Threads decode ahead while the encoder computes one recording at a time."""
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    pending: deque[tuple[BenchmarkClip, Callable[[], Outcome]]] = deque()
    with ThreadPoolExecutor(threads, "embed") as pool:
        try:
            for clip in clips:
                pending.append((clip, _begin(encoder, clip, cache, pool)))
                if len(pending) > threads * _AHEAD:
                    first, finish = pending.popleft()
                    yield first, finish()
            for clip, finish in pending:
                yield clip, finish()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(
    encoder: ClapEncoder, clip: BenchmarkClip, cache: EmbeddingCache, pool: ThreadPoolExecutor
) -> Callable[[], Outcome]:
    """Starts embedding the clip; returns a function that waits for the outcome and caches a new embedding."""
    if clip.path is None:
        return lambda: None
    try:
        file = FileState.of(clip.path)
    except OSError as error:
        failure = AudioError(f"{clip.path.name} can't be opened ({error.strerror}): check its permissions.")
        return lambda: failure
    cached = cache.get(file)
    if cached is not None:
        return lambda: cached
    future = pool.submit(encoder.embed_recording, clip.path)

    def finish() -> Outcome:
        try:
            embedding = future.result()
        except AudioError as error:
            return error
        cache.put(file, embedding)
        return embedding

    return finish
