"""Files on disk → embeddings stored: through a real worker beside the same work in a loop, and by two workers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from clapboard.audio.windows import Window, windows
from clapboard.model.clap import ClapEncoder
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from tests.bench.clips import COMPRESSED_AND_WAV, Clips
from tests.bench.rows import Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import medians, seconds_of
from tests.bench.warm_workers import BROKER, WarmWorkers, broker

FROM_DISK = Case(
    f"files (ogg, wav, mp3 of 10 s) → embeddings stored, through Celery on {BROKER}",
    "clips/s",
    "the same encoder offline in a loop, in one process",
    Goal(ratio_at_least=0.9),
    "ours ÷ peer",
)
TWO_WORKERS = Case(
    "the same by two workers of one thread, each on a core of its own",
    "clips/s",
    "one such worker",
    Goal(ratio_at_least=1.8),
    "ours ÷ peer",
)

_MANY_CLIPS = 192
"""A worker claims clips by the batch: of few, one of two workers would often have a batch more than the other."""


def measure_worker(effort: Effort) -> Mapping[Case, Outcome]:
    """A worker with all threads and the loop, in turns on the same files; the worker predicts from them, too."""
    num_clips, clips = effort.of(96, 6), Clips(COMPRESSED_AND_WAV)
    folder = effort.folder / "worker"
    with broker(folder / "redis") as url:
        workers = WarmWorkers(
            folder / "installation", effort.checkpoint, num_threads=torch.get_num_threads(), broker_url=url
        )
        with workers, Loop(effort.checkpoint, folder / "loop") as loop:
            seconds = medians(
                {
                    "ours": lambda: workers.seconds(clips.take(num_clips)),
                    "peer": lambda: loop.seconds(clips.take(num_clips)),
                },
                effort.of(3, 1),
                warm_ups=effort.of(1, 0),
            )
    return {FROM_DISK: Figures(num_clips / seconds["ours"], num_clips / seconds["peer"])}


def measure_two_workers(effort: Effort) -> Mapping[Case, Outcome]:
    """Two pinned workers on one store, and one on another, in turns."""
    num_clips, clips = effort.of(_MANY_CLIPS, 6), Clips(COMPRESSED_AND_WAV)
    cores = sorted(os.sched_getaffinity(0))[:2]
    folder = effort.folder / "two-workers"
    with broker(folder / "redis-two") as url_two, broker(folder / "redis-one") as url_one:
        two = WarmWorkers(folder / "two", effort.checkpoint, num_threads=1, pinned_to=cores, broker_url=url_two)
        one = WarmWorkers(folder / "one", effort.checkpoint, num_threads=1, pinned_to=cores[:1], broker_url=url_one)
        with two, one:
            seconds = medians(
                {
                    "two": lambda: two.seconds(clips.take(num_clips)),
                    "one": lambda: one.seconds(clips.take(num_clips)),
                },
                effort.of(3, 1),
                warm_ups=effort.of(1, 0),
            )
    return {TWO_WORKERS: Figures(num_clips / seconds["two"], num_clips / seconds["one"])}


class Loop:
    """Context manager: the worker's work without queue, threads and neighbours: read, embed in batches, store."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self._encoder = ClapEncoder.load(str(checkpoint), device="cpu")
        folder.mkdir(parents=True)
        self._folder = folder
        self._store = Store.open(Settings(MODEL_DIR=folder, CLAPBOARD_MODEL=str(checkpoint)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def seconds(self, contents: Sequence[bytes]) -> float:
        """How long it takes for the files, which lie on disk before."""
        paths = []
        for number, content in enumerate(contents):
            paths.append(self._folder / str(number))
            paths[-1].write_bytes(content)
        return seconds_of(lambda: self._run(paths))

    def _run(self, paths: Sequence[Path]) -> None:
        batch: list[tuple[str, Window]] = []
        for path in paths:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            batch += [(sha256, window) for window in windows(path)]
            if len(batch) >= self._encoder.batch_size:
                self._flush(batch)
                batch = []
        if batch:
            self._flush(batch)

    def _flush(self, batch: Sequence[tuple[str, Window]]) -> None:
        identity = self._encoder.identity
        vectors = self._encoder.embed_windows(np.stack([window.waveform for _, window in batch]))
        for (sha256, window), vector in zip(batch, vectors, strict=True):
            self._store.embeddings.put(sha256, identity.version, identity.dtype, window.index, vector[None])
            self._store.embeddings.put_recording(sha256, Recording(sha256, window.index + 1, window.end_s))


def _too_few_cores() -> str:
    return "" if len(os.sched_getaffinity(0)) >= 2 else "there is one core"


WORKER_SECTION = Section((FROM_DISK,), measure_worker)
TWO_WORKERS_SECTION = Section((TWO_WORKERS,), measure_two_workers, _too_few_cores, in_quick=False)
