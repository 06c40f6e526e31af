"""What decoders return: pieces of samples, and the condition of the recording."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clapboard.errors import AudioTooLong

Samples = npt.NDArray[np.float32]
"""Float32 `[t, C]` as they come from a decoder; integer formats span [-1, 1]."""

SAMPLE_RATE = 48_000
"""In Hz, of all that a model sees."""

BLOCK_SAMPLES = 1 << 16
"""About how many samples a piece holds, over all channels."""

LEAST_DAMAGE_S = 0.05
"""Less isn't reported: encoders and containers round lengths by as much."""


@dataclass(frozen=True)
class Piece:
    """Consecutive samples, `[t, C]`, and their rate in Hz."""

    rate: int
    samples: Samples

    @property
    def duration_s(self) -> float:
        """The piece's length in seconds. (A rate of 0 is refused later.)"""
        return len(self.samples) / max(1, self.rate)


@dataclass
class Condition:
    """What reading a recording showed about it; complete once it has been read to its end."""

    lost_s: float = 0.0  # about how much of it couldn't be decoded
    missing_s: float = 0.0  # at its end: promised by its header, but not there
    cancelled_s: float = 0.0  # for how long one channel was used, because all of them cancelled each other
    sample_rate: int = 0  # in Hz, as it begins; 0 until some of it was decoded
    num_channels: int = 0  # likewise

    @property
    def damage(self) -> str:
        """How much of it is lost or missing, to end a sentence with; empty if all of it could be decoded."""
        clauses = []
        if self.lost_s > LEAST_DAMAGE_S:
            clauses.append(f"about {max(0.1, self.lost_s):.1f} s of it can't be decoded")
        if self.missing_s > LEAST_DAMAGE_S:
            clauses.append(f"it is {max(0.1, self.missing_s):.1f} s shorter than its header says")
        return ", and ".join(clauses)


@dataclass(frozen=True)
class Bound:
    """The longest that a recording may be, in seconds. Errors call it `name`; `on_piece` is called for each piece."""

    name: str
    longest_s: float = math.inf
    on_piece: Callable[[], None] = lambda: None

    def check(self, pieces: Iterable[Piece], before_s: float = 0.0) -> Iterator[Piece]:
        """The pieces, which follow `before_s` seconds of the recording. Raises `AudioTooLong` where it is too long."""
        duration_s = before_s
        for piece in pieces:
            self.on_piece()
            duration_s += piece.duration_s
            if duration_s > self.longest_s + LEAST_DAMAGE_S:
                raise AudioTooLong(
                    f"{self.name} is longer than the {_in_words(self.longest_s)} that CLAPBOARD_MAX_AUDIO_S allows: "
                    "cut it into shorter files, or raise that setting."
                )
            yield piece


def gain_of(pieces: Iterable[Piece]) -> float:
    """The factor that brings the peak of a recording down to 1 if it is above."""
    peak = max((float(np.abs(piece.samples).max()) for piece in pieces), default=0.0)
    return 1.0 / peak if 1.0 < peak < math.inf else 1.0


def scaled(pieces: Iterable[Piece], gain: float) -> Iterator[Piece]:
    """The pieces times the gain."""
    for piece in pieces:
        yield Piece(piece.rate, piece.samples * np.float32(gain)) if gain != 1.0 else piece


def _in_words(duration_s: float) -> str:
    """The duration as people say it."""
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if duration_s >= unit_s and duration_s % unit_s == 0:
            return f"{duration_s / unit_s:g} {unit}"
    return f"{duration_s:g} s"
