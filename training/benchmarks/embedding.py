"""A benchmark's clips → one embedding each, by the very code that serves. What isn't there is counted."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from clapboard.clap import ClapEncoder
from clapboard.errors import AudioError
from clapboard.scoring import Array
from training.benchmarks.benchmark import BenchmarkClip
from training.benchmarks.cache import EmbeddingCache, FileState
from training.evaluation.listed_clips import Unreadable

_MAX_THREADS = 16
_AHEAD = 4  # files a thread has before it, so that none waits for the table's order


@dataclass(frozen=True, eq=False)
class EmbeddedClips:
    """The clips that could be heard, with their embeddings `[N, D]`, and those that couldn't."""

    clips: tuple[BenchmarkClip, ...]
    embeddings: Array
    missing: tuple[str, ...]  # names whose audio isn't there
    unreadable: tuple[Unreadable, ...]


def embed_clips(
    encoder: ClapEncoder,
    clips: Sequence[BenchmarkClip],
    cache: EmbeddingCache,
    *,
    on_clip: Callable[[], None] = lambda: None,
) -> EmbeddedClips:
    """The clips with their embeddings, from the cache or anew, in their order.

    `on_clip` hears of each clip that is done. Raises `TrainingError` if the cache can't be used.
    """
    heard: list[BenchmarkClip] = []
    rows: list[Array] = []
    missing = []
    unreadable = []
    for clip, outcome in _in_order(encoder, clips, cache):
        if clip.path is None:
            missing.append(clip.name)
        elif isinstance(outcome, AudioError):
            unreadable.append(Unreadable(clip.path, str(outcome)))
        elif outcome is not None:
            heard.append(clip)
            rows.append(outcome)
        on_clip()
    embeddings = np.stack(rows) if rows else np.zeros((0, encoder.identity.dim), np.float32)
    return EmbeddedClips(tuple(heard), embeddings, tuple(missing), tuple(unreadable))


Outcome = Array | AudioError | None
"""A clip's embedding `[D]`, why there is none, or nothing where no file is."""


def _in_order(
    encoder: ClapEncoder, clips: Sequence[BenchmarkClip], cache: EmbeddingCache
) -> Iterator[tuple[BenchmarkClip, Outcome]]:
    """Each clip and what became of it. Threads decode ahead while the encoder, which takes turns, computes."""
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    begun: deque[tuple[BenchmarkClip, Callable[[], Outcome]]] = deque()
    with ThreadPoolExecutor(threads, "embed") as pool:
        try:
            for clip in clips:
                begun.append((clip, _begin(encoder, clip, cache, pool)))
                if len(begun) > threads * _AHEAD:
                    first, finish = begun.popleft()
                    yield first, finish()
            for clip, finish in begun:
                yield clip, finish()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(
    encoder: ClapEncoder, clip: BenchmarkClip, cache: EmbeddingCache, pool: ThreadPoolExecutor
) -> Callable[[], Outcome]:
    """What waits for the clip's embedding, keeps it where it is new, and gives it."""
    if clip.path is None:
        return lambda: None
    try:
        file = FileState.of(clip.path)
    except OSError as error:
        refused = AudioError(f"{clip.path.name} can't be opened ({error.strerror}): check its permissions.")
        return lambda: refused
    known = cache.get(file)
    if known is not None:
        return lambda: known
    future = pool.submit(encoder.embed_recording, clip.path)

    def finish() -> Outcome:
        try:
            embedding = future.result()
        except AudioError as error:
            return error
        cache.put(file, embedding)
        return embedding

    return finish
