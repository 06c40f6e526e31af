"""A file → its windows: the one policy for decoding, mixing, resampling and cutting, in serving and training alike.

A recording becomes mono float32 at 48 kHz and is cut into fixed 10 s windows, never at random: 0–10 s, 10–20 s, …,
and a last one aligned to the end. A recording shorter than 10 s is repeated a whole number of times, then padded with
zeros (`repeatpad`), as CLAP checkpoints were trained. Files are read in blocks, so memory doesn't grow with their
length. All of a file is read; what can't be decoded is left out and recorded in its `Condition`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from clapboard.audio.confined.decoders import decoders
from clapboard.audio.confined.messages import Request
from clapboard.audio.pieces import SAMPLE_RATE as SAMPLE_RATE
from clapboard.audio.pieces import Condition
from clapboard.errors import AudioError

WINDOW_S = 10.0
WINDOW_SAMPLES = 480_000

Waveform = npt.NDArray[np.float32]
"""Float32 in [-1, 1]: `[T]`, or `[T, C]` as it comes from a decoder."""

AudioFile = Path | IO[bytes]
"""A recording: a file on disk, or an open or in-memory file, which is closed after it has been read."""

_HALF_WINDOW_SAMPLES = WINDOW_SAMPLES // 2
_ROUNDING_SAMPLES = SAMPLE_RATE // 20


@dataclass(frozen=True)
class Window:
    """What the model sees of a recording: `waveform` `[480000]`, whose content lies at `start_s`–`end_s` seconds.

    One that `is_between` is none of those that `windows` gives: it has the index of the window before it.
    """

    index: int
    start_s: float
    end_s: float
    waveform: Waveform
    is_between: bool = False


@dataclass(frozen=True)
class Span:
    """A piece of a recording, by its start and end in seconds."""

    start_s: float
    end_s: float

    def __str__(self) -> str:
        return f"{self.start_s:g}–{self.end_s:g} s"


def windows(
    path: Path,
    *,
    name: str = "",
    span: Span | None = None,
    channel: str = "",
    longest_s: float = math.inf,
    condition: Condition | None = None,
) -> Iterator[Window]:
    """The recording's windows in order, each ready for the model.

    With a `span`, that piece is treated as if it were the whole recording. Errors call the recording `name`, by default
    its file's name; `channel`, `longest_s` and `condition` are as in `blocks`. Raises `AudioError`, at the first window
    that can't be read, if the file isn't audio that can be used, or ends before the span does.
    """
    name = name or path.name
    before: Waveform = np.zeros(0, np.float32)
    pieces = piece_blocks(path, name=name, span=span, channel=channel, longest_s=longest_s, condition=condition)
    for index, piece in enumerate(regrouped(pieces, WINDOW_SAMPLES)):
        missing = WINDOW_SAMPLES - piece.size if index else 0
        whole = np.concatenate([before[WINDOW_SAMPLES - missing :], piece]) if missing else piece
        yield _window(index, index * WINDOW_SAMPLES - missing, whole)
        before = piece
    if before.size == 0:
        raise no_samples(name)


def overlapping_windows(
    path: Path,
    *,
    name: str = "",
    span: Span | None = None,
    channel: str = "",
    longest_s: float = math.inf,
    condition: Condition | None = None,
) -> Iterator[Window]:
    """The windows that `windows` gives and those halfway between them, in the order of time.

    So there is one every 5 s, and a last one aligned to the end. Parameters and errors are those of `windows`.
    """
    name = name or path.name
    window: Waveform = np.zeros(0, np.float32)  # the latest 10 s of samples, if there are so many
    end = 0
    pieces = piece_blocks(path, name=name, span=span, channel=channel, longest_s=longest_s, condition=condition)
    for piece in regrouped(pieces, _HALF_WINDOW_SAMPLES):
        if window.size == WINDOW_SAMPLES:  # only now is it known that it isn't the last
            yield _overlapping_window(end, window, is_last=False)
        window = np.concatenate([window[max(0, window.size + piece.size - WINDOW_SAMPLES) :], piece])
        end += piece.size
    if end == 0:
        raise no_samples(name)
    yield _overlapping_window(end, window, is_last=True)


def num_overlapping_windows(num_samples: int) -> int:
    """How many windows `overlapping_windows` gives for a recording of so many samples."""
    return 1 + math.ceil(max(0, num_samples - WINDOW_SAMPLES) / _HALF_WINDOW_SAMPLES)


def window_waveform(waveform: Waveform) -> Waveform:
    """The windows of samples in memory: `[T]` → `[W, 480000]`."""
    num_samples = waveform.size
    if num_samples <= WINDOW_SAMPLES:
        return repeat_pad(waveform)[None]
    starts = [*range(0, num_samples - WINDOW_SAMPLES, WINDOW_SAMPLES), num_samples - WINDOW_SAMPLES]
    return np.stack([waveform[start : start + WINDOW_SAMPLES] for start in starts])


def repeat_pad(waveform: Waveform) -> Waveform:
    """`[T]`, T ≤ 480000, repeated as often as it fits as a whole, then zeros: `[480000]`."""
    if waveform.size == WINDOW_SAMPLES:
        return waveform
    repeats = WINDOW_SAMPLES // waveform.size
    padded = np.zeros(WINDOW_SAMPLES, np.float32)
    padded[: repeats * waveform.size] = np.tile(waveform, repeats)
    return padded


def read(source: AudioFile, *, name: str = "", channel: str = "", condition: Condition | None = None) -> Waveform:
    """The whole recording, mono at 48 kHz: `[T]`. For short files; `windows` reads any length.

    Raises `AudioError` if the file isn't audio that can be used.
    """
    pieces = blocks(source, name=name, channel=channel, condition=condition)
    waveform = np.concatenate([np.zeros(0, np.float32), *pieces])
    if waveform.size == 0:
        raise no_samples(_name_of(source, name))
    return waveform


def blocks(
    source: AudioFile,
    *,
    name: str = "",
    channel: str = "",
    longest_s: float = math.inf,
    condition: Condition | None = None,
) -> Iterator[Waveform]:
    """The recording as consecutive pieces `[t]`, mono float32 in [-1, 1] at 48 kHz.

    Integer formats span [-1, 1]. A float file whose peak is above 1 is scaled down as a whole by that peak, which takes
    a first pass; the small overshoot of lossy decoders and of the resampler is clipped. `channel` names the channel to
    use instead of the mean of all (see `channels`); `condition` records how much couldn't be decoded. A confined
    process decodes the file, a little ahead (see `confined`).

    Raises `AudioError` if most of the file can't be decoded, if it holds NaN or infinite samples, or if it takes its
    decoder down; `AudioTooLong` if it is longer than `longest_s`; `InternalError` where another try may succeed.
    """
    name = _name_of(source, name)
    condition = Condition() if condition is None else condition
    with _open(source, name) if isinstance(source, Path) else source as file:
        yield from decoders().blocks(file, Request(name, channel, longest_s), condition)


def piece_blocks(
    path: Path,
    *,
    name: str = "",
    span: Span | None = None,
    channel: str = "",
    longest_s: float = math.inf,
    condition: Condition | None = None,
) -> Iterator[Waveform]:
    """The recording's `blocks`, cut to the span if there is one. Raises `AudioError` also if it ends before that."""
    name = name or path.name
    pieces = blocks(path, name=name, channel=channel, longest_s=longest_s, condition=condition)
    return pieces if span is None else _cut(pieces, span, name)


def _cut(pieces: Iterable[Waveform], span: Span, name: str) -> Iterator[Waveform]:
    """The consecutive pieces, cut to the span. Its end may have been rounded to a little after the last sample."""
    start, end = round(span.start_s * SAMPLE_RATE), round(span.end_s * SAMPLE_RATE)
    if not 0 <= start < end:
        raise AudioError(f"{span} of {name} is no piece: give a start of 0 or more, and an end after it.")
    num_read = 0
    for piece in pieces:
        inside = piece[max(0, start - num_read) : max(0, end - num_read)]
        num_read += piece.size
        if inside.size:
            yield inside
        if num_read >= end:
            return
    if end - num_read > _ROUNDING_SAMPLES or start >= num_read:
        raise AudioError(
            f"{name} is {num_read / SAMPLE_RATE:.1f} s long: choose a piece that ends before that, not {span}."
        )


def regrouped(pieces: Iterable[Waveform], num_samples: int) -> Iterator[Waveform]:
    """The same samples in pieces of `num_samples`; the last piece may be shorter."""
    waiting: list[Waveform] = []
    num_waiting = 0
    for piece in pieces:
        waiting.append(piece)
        num_waiting += piece.size
        if num_waiting >= num_samples:
            joined = np.concatenate(waiting) if len(waiting) > 1 else piece
            num_waiting %= num_samples
            full = joined.size - num_waiting
            yield from np.split(joined[:full], full // num_samples)
            waiting = [joined[full:]]
    if num_waiting:
        yield np.concatenate(waiting)


def _name_of(source: AudioFile, name: str) -> str:
    """The recording's name in errors."""
    return name or (source.name if isinstance(source, Path) else "The recording")


def no_samples(name: str) -> AudioError:
    """The error for a recording without samples."""
    return AudioError(f"{name} holds no samples: replace it with a recording that has sound in it.")


def _overlapping_window(end: int, waveform: Waveform, *, is_last: bool) -> Window:
    start = end - waveform.size
    is_between = start % WINDOW_SAMPLES > 0 and not is_last
    index = math.ceil(start / WINDOW_SAMPLES) if is_last else start // WINDOW_SAMPLES
    return Window(index, start / SAMPLE_RATE, end / SAMPLE_RATE, repeat_pad(waveform), is_between)


def _window(index: int, start: int, waveform: Waveform) -> Window:
    end = start + waveform.size
    return Window(index, start / SAMPLE_RATE, end / SAMPLE_RATE, repeat_pad(waveform))


def _open(path: Path, name: str) -> IO[bytes]:
    if not path.is_file():
        raise AudioError(f"{name} doesn't exist, or isn't a file: check its path.")
    if path.stat().st_size == 0:
        raise AudioError(f"{name} is empty: export or upload it again.")
    try:
        return path.open("rb")
    except OSError as error:
        raise AudioError(f"{name} can't be opened ({error.strerror}): check its permissions.") from None
