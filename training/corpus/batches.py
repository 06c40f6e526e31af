"""Turns a data set's pairs into batches: each sound with one of its captions, or one made of its tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE, WINDOW_S, Waveform
from clapboard.errors import TrainingError
from clapboard.labels.captions import Captioner, raw
from training.corpus.stream import PairStream, Sample
from training.pretraining.batch import Batch, respelt
from training.pretraining.loss import Meaning
from training.pretraining.mixtures import Sound, mixtures_of
from training.pretraining.processes import ALONE, Processes


class PairBatches:
    """Batches that use each sound of a data set once an epoch, except those that don't fill a last batch.

    Longer sounds are cropped at random to `max_s`: one window, or more for models that fuse four mels. With `mixtures`,
    so many of them, over all processes, are made of each batch's sounds, at known times.
    """

    def __init__(
        self,
        folder: Path,
        captioner: Captioner,
        *,
        batch_size: int,
        seed: int,
        max_s: float = WINDOW_S,
        threads: int = 1,
        processes: Processes = ALONE,
        mixtures: int = 0,
    ) -> None:
        """Raises `TrainingError` if the data set can't be used, or a batch can't be filled or divided."""
        for noun, number in (("A batch of {}", batch_size), ("{} mixtures a step", mixtures)):
            if number % processes.count:
                raise TrainingError(
                    f"{noun.format(number)} can't be divided among {processes.count} processes: choose a multiple of "
                    f"{processes.count}."
                )
        self._stream = PairStream(folder, seed=seed, rank=processes.rank, world_size=processes.count, threads=threads)
        self._captioner = captioner
        self._samples_per_process = batch_size // processes.count
        self._seed = seed
        self._max_samples = round(max_s * SAMPLE_RATE)
        self._mixtures = mixtures // processes.count
        self._rank = processes.rank
        self.num_batches = self._stream.num_samples // batch_size
        if not self.num_batches:
            raise TrainingError(
                f"Data set {folder} has {self._stream.num_samples} pairs, fewer than a batch of {batch_size}: choose a "
                "smaller batch size."
            )

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        """The epoch's batches in its own random order, without the first `skip`."""
        samples = self._stream.epoch(number, skip=skip * self._samples_per_process)
        for index in range(skip, self.num_batches):
            rng = np.random.default_rng([self._seed, number, index, self._rank])
            yield self._batch([next(samples) for _ in range(self._samples_per_process)], rng)

    def _batch(self, samples: list[Sample], rng: np.random.Generator) -> Batch:
        captions = [self._caption(sample, rng) for sample in samples]
        meanings = [meaning(sample, caption) for sample, caption in zip(samples, captions, strict=True)]
        sounds = [crop(sample.waveform, self._max_samples, rng) for sample in samples]
        return Batch(
            sounds=sounds,
            meanings=meanings,
            captions=[respelt(caption, rng) for caption in captions],
            caption_meanings=meanings,
            mixtures=mixtures_of([*map(Sound, sounds, meanings)], self._mixtures, rng),
        )

    def _caption(self, sample: Sample, rng: np.random.Generator) -> str:
        if sample.captions:
            return sample.captions[int(rng.integers(len(sample.captions)))]
        return self._captioner.caption(sample.tags, rng)


def meaning(sample: Sample, caption: str) -> Meaning:
    """The sample's tags in equal shares, or its caption if it has none. Spelling variants count as the same."""
    if sample.tags:
        tags = dict.fromkeys(map(raw, sample.tags))
        return {tag: 1 / len(tags) for tag in tags}
    return {caption.lower().rstrip("."): 1.0}


def crop(waveform: Waveform, max_samples: int, rng: np.random.Generator) -> Waveform:
    """The waveform, or a random excerpt of `max_samples` if it is longer."""
    if waveform.size <= max_samples:
        return waveform
    start = int(rng.integers(waveform.size - max_samples + 1))
    return waveform[start : start + max_samples]
