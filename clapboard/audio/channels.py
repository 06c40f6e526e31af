"""Several channels → the one to embed: their mean, unless they cancel each other in it, or a chosen one."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from clapboard.audio.pieces import Condition, Piece, Samples
from clapboard.errors import AudioError

NAMED = {"left": 0, "right": 1}

_LEAST_OF_LOUDEST = 10 ** (-12 / 10)
"""If the mean of all channels keeps less of the loudest one's power than this, they cancel each other."""

_LOUD_ENOUGH = 10 ** (-6 / 10)
"""The channel that stands in for the mean is kept while it has this much of the loudest one's power.

Switching to another may be audible.
"""


def content_key(key: str, channel: str) -> str:
    """The key of a file's or address's content when only that channel is embedded: 64 hex digits, like `key` itself.

    For the mean of all channels, an empty `channel`, it is `key`.
    """
    return hashlib.sha256(f"{key} {channel}".encode()).hexdigest() if channel else key


class ChannelMix:
    """Mixes the pieces of one recording, in order, to mono."""

    def __init__(self, name: str, channel: str, condition: Condition) -> None:
        """`channel` is empty for the mean, `left`, `right`, or a number from 1. A mono recording is used as it is.

        Errors call the recording `name`; `condition` records for how long the channels cancelled each other.
        """
        self._name = name
        self._index = NAMED.get(channel, int(channel) - 1 if channel.isdigit() else None)
        self._condition = condition
        self._substitute = 0  # the channel in place of a mean that cancels

    def mono(self, piece: Piece) -> npt.NDArray[np.float32]:
        """The piece's samples `[t]`. Raises `AudioError` if the recording has no such channel."""
        num_channels = piece.samples.shape[1]
        if num_channels == 1:
            return np.ascontiguousarray(piece.samples[:, 0])
        if self._index is None:
            return self._mean(piece)
        if self._index >= num_channels:
            raise AudioError(
                f"{self._name} has {num_channels} channels, and the label config asks for channel {self._index + 1}: "
                "correct its Audio's channel."
            )
        return np.ascontiguousarray(piece.samples[:, self._index])

    def _mean(self, piece: Piece) -> npt.NDArray[np.float32]:
        mean: npt.NDArray[np.float32] = piece.samples.mean(axis=1, dtype=np.float32)
        powers = _powers(piece.samples)
        if float(np.dot(mean, mean)) >= _LEAST_OF_LOUDEST * powers.max():
            return mean
        if self._substitute >= powers.size or powers[self._substitute] < _LOUD_ENOUGH * powers.max():
            self._substitute = int(powers.argmax())
        self._condition.cancelled_s += piece.duration_s
        return np.ascontiguousarray(piece.samples[:, self._substitute])


def _powers(samples: Samples) -> npt.NDArray[np.float64]:
    """Each channel's power `[C]`, times the number of samples."""
    return np.einsum("tc,tc->c", samples, samples, dtype=np.float64, casting="unsafe")
