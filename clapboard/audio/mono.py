"""An open file → its samples, mono at 48 kHz. Runs where native decoders may: in a confined process (`confined`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
import numpy.typing as npt
import soxr

from clapboard.audio.channels import ChannelMix
from clapboard.audio.decoding import decode
from clapboard.audio.pieces import SAMPLE_RATE, Bound, Condition, Piece
from clapboard.errors import AudioError

Block = npt.NDArray[np.float32]

_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 1_000_000


def mono_blocks(file: IO[bytes], bound: Bound, channel: str, condition: Condition) -> Iterator[Block]:
    """The recording as consecutive blocks `[t]`, float32 in [-1, 1]: what `windows.blocks` promises."""
    mix = ChannelMix(bound.name, channel, condition)
    yield from _resampled(bound.name, decode(file, bound, condition), mix)


def _resampled(name: str, pieces: Iterable[Piece], mix: ChannelMix) -> Iterator[Block]:
    """The pieces as mono at 48 kHz. The sample rate may change midway."""
    stream: soxr.ResampleStream | None = None
    rate = 0
    for piece in pieces:
        if not np.isfinite(piece.samples).all():
            raise AudioError(f"{name} holds NaN or infinite samples: repair or re-export it.")
        if piece.rate != rate:
            yield from _rest(stream)
            rate = piece.rate
            if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
                raise AudioError(
                    f"{name} has a sample rate of {rate} Hz, which audio doesn't have: re-export it at 48 kHz."
                )
            stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        mono = mix.mono(piece)
        yield np.clip(mono if stream is None else stream.resample_chunk(mono), -1.0, 1.0)
    yield from _rest(stream)


def _rest(stream: soxr.ResampleStream | None) -> Iterator[Block]:
    """What the resampler keeps back until it knows that nothing follows."""
    if stream is not None:
        yield np.clip(stream.resample_chunk(np.zeros(0, np.float32), last=True), -1.0, 1.0)
