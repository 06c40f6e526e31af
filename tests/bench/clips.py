"""Short recordings as users upload them, and any number of copies of each that nobody has heard before."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import soundfile

from tests.support.recordings import sweep

COMPRESSED_AND_WAV = ("OGG", "WAV", "MP3")
COMPRESSED = ("OGG", "MP3")
WAV = ("WAV",)

_NUM_DIFFERENT = 12
"""Encoding takes far longer than decoding: more clips are copies of these."""


class Clips:
    """A supply of recordings in the formats, one format after the other."""

    def __init__(self, formats: Sequence[str], *, duration_s: float = 10.0, sample_rate: int = 44_100) -> None:
        self._contents = [
            _encoded(format_, seed, duration_s, sample_rate)
            for seed, format_ in zip(range(_NUM_DIFFERENT), itertools.cycle(formats), strict=False)
        ]
        self._numbers = itertools.count()

    def take(self, count: int) -> list[bytes]:
        """So many files, each unlike all before: the bytes behind its end, which decoders leave alone, are its own."""
        numbers = itertools.islice(self._numbers, count)
        return [self._contents[number % _NUM_DIFFERENT] + f"{number:016d}".encode() for number in numbers]


def _encoded(format_: str, seed: int, duration_s: float, sample_rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sweep(duration_s, sample_rate, seed=seed), sample_rate, format=format_)
    return file.getvalue()
