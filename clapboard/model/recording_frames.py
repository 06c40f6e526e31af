"""A recording → its frames: vectors of equal, short steps of time, from its first sample to its last.

Windows overlap by half, and each frame comes from the window in which it lies most central, since a frame at a window's
edge knows only one side of its surroundings. The first window and the last, which ends with the recording, also give
the frames at their outer edge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clapboard.audio.levels import LEVEL_S, Levels, decibels, powers
from clapboard.audio.pieces import Condition
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Span, Window, overlapping_windows

if TYPE_CHECKING:
    from clapboard.model.clap import ClapEncoder, WindowFrames

_LEVEL_SAMPLES = round(LEVEL_S * SAMPLE_RATE)

Frames = npt.NDArray[np.float32]
"""Unit-norm rows `[F, D]`, float32, in the order of time."""


@dataclass(frozen=True, eq=False)
class FramePiece:
    """What one window adds to a recording's frames: `frames` `[n, D]` from frame `first_frame` on.

    The window lies at `start_s`–`end_s` seconds; its own embedding is `[D]`. `levels` `[m, 16]` are the rows of the
    recording's levels that begin in these frames.
    """

    first_frame: int
    frames: Frames
    levels: Levels
    embedding: npt.NDArray[np.float32]
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class RecordingFrames:
    """The frames `[F, D]` of a recording and the embeddings `[W, D]` of its overlapping windows.

    Frame i covers seconds i · `frame_s` to (i + 1) · `frame_s`; the last one may be cut short by the recording's end at
    `duration_s`. The windows lie at `window_s` `[W, 2]`. `levels` `[R, 16]` tell how loud it is, see `audio.levels`.
    """

    frames: Frames
    frame_s: float
    duration_s: float
    window_embeddings: npt.NDArray[np.float32]
    window_s: npt.NDArray[np.float64]
    levels: Levels | None = None

    @classmethod
    def of(cls, pieces: Sequence[FramePiece], frame_s: float) -> RecordingFrames:
        """All the pieces of a recording, in order, put together."""
        return cls(
            np.concatenate([piece.frames for piece in pieces]),
            frame_s,
            pieces[-1].end_s,
            np.stack([piece.embedding for piece in pieces]),
            np.array([[piece.start_s, piece.end_s] for piece in pieces]),
            np.concatenate([piece.levels for piece in pieces]),
        )


def embed_recording(
    encoder: ClapEncoder,
    path: Path,
    *,
    name: str = "",
    span: Span | None = None,
    channel: str = "",
    longest_s: float = math.inf,
    condition: Condition | None = None,
) -> RecordingFrames:
    """The frames of an audio file, with its windows' embeddings.

    The parameters are those of `ClapEncoder.views`. While the file is read, memory holds a batch of windows and the
    frames so far, 24 MB an hour for 512 dimensions; `frame_pieces` gives them as they come. Raises `AudioError` if it
    isn't audio that can be used.
    """
    pieces = frame_pieces(
        encoder, path, name=name, span=span, channel=channel, longest_s=longest_s, condition=condition
    )
    return RecordingFrames.of([*pieces], encoder.frame_s)


def frame_pieces(
    encoder: ClapEncoder,
    path: Path,
    *,
    name: str = "",
    span: Span | None = None,
    channel: str = "",
    longest_s: float = math.inf,
    condition: Condition | None = None,
) -> Iterator[FramePiece]:
    """The pieces of an audio file's frames, in order; memory holds a batch of windows, whatever the file's length.

    Parameters and errors are those of `embed_recording`.
    """
    windows = overlapping_windows(path, name=name, span=span, channel=channel, longest_s=longest_s, condition=condition)
    selection = FrameSelection(encoder.frame_s)
    while batch := [*itertools.islice(windows, encoder.batch_size)]:
        embedded = encoder.embed_windows_with_frames([window.waveform for window in batch])
        for index, window in enumerate(batch):
            yield from selection.add(EmbeddedFrames.of(window, embedded, index))
    yield from selection.end()


@dataclass(frozen=True, eq=False)
class EmbeddedFrames:
    """A window at `start_s`–`end_s` seconds: its embedding `[D]`, frames `[T, D]` and levels, of all 10 s."""

    start_s: float
    end_s: float
    embedding: npt.NDArray[np.float32]
    frames: Frames
    levels: Levels

    @classmethod
    def of(cls, window: Window, embedded: WindowFrames, index: int) -> EmbeddedFrames:
        """Those of a window that is the `index`th of the embedded ones; copied, so that the others can be let go."""
        values = embedded.embeddings[index].copy(), embedded.frames[index].copy(), embedded.levels[index].copy()
        return cls(window.start_s, window.end_s, *values)

    @property
    def start(self) -> int:
        """The window's first sample."""
        return round(self.start_s * SAMPLE_RATE)


class FrameSelection:
    """Takes a recording's overlapping windows in order, and gives what each adds to the frames."""

    def __init__(self, frame_s: float) -> None:
        self._frame_samples = round(frame_s * SAMPLE_RATE)
        self._next_frame = 0
        self._next_row = 0
        self._window: EmbeddedFrames | None = None

    def add(self, window: EmbeddedFrames) -> list[FramePiece]:
        """The piece of the window before, if there is one: now its end is known."""
        before, self._window = self._window, window
        if before is None:
            return []
        middle = (before.start + window.start + WINDOW_SAMPLES) / 2  # equally far from both windows' centres
        return [self._piece(before, math.ceil(middle / self._frame_samples - 0.5))]

    def end(self) -> list[FramePiece]:
        """The last window's piece, up to the recording's end."""
        window, self._window = self._window, None
        if window is None:
            return []
        return [self._piece(window, math.ceil(round(window.end_s * SAMPLE_RATE) / self._frame_samples))]

    def _piece(self, window: EmbeddedFrames, stop: int) -> FramePiece:
        """The window's frames from the first one that is missing to before `stop`."""
        first, self._next_frame = self._next_frame, stop
        frames = _on_grid(window.frames, np.arange(first, stop), window.start / self._frame_samples)
        frames /= np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        stop_row = math.ceil(min(stop * self._frame_samples, round(window.end_s * SAMPLE_RATE)) / _LEVEL_SAMPLES)
        rows, self._next_row = np.arange(self._next_row, stop_row), stop_row
        loudness = decibels(_on_grid(powers(window.levels), rows, window.start / _LEVEL_SAMPLES))
        return FramePiece(first, frames, loudness, window.embedding, window.start_s, window.end_s)


def _on_grid(steps: npt.NDArray[np.float32], places: npt.NDArray[np.int_], offset: float) -> npt.NDArray[np.float32]:
    """The values `[n, D]` at places of the recording's grid, of a window's steps `[T, D]` that begin at its `offset`.

    The last window of a recording seldom starts where a step of the grid does: then each of these is the mean of the
    two of the window that it overlaps, weighted by how much.
    """
    last = len(steps) - 1
    below = np.floor(places - offset).astype(int)
    share = (places - offset - below)[:, None].astype(np.float32)
    if not share.any():
        return steps[np.clip(below, 0, last)]
    return (1 - share) * steps[np.clip(below, 0, last)] + share * steps[np.clip(below + 1, 0, last)]
