"""File → windows: the only decode, mono, resample and window policy, for serving, training and evaluation alike.

A recording becomes mono float32 at 48 kHz and is cut into fixed 10 s windows, never at random: 0–10 s, 10–20 s, …,
and a last one aligned to the end. A recording shorter than 10 s is repeated a whole number of times and then padded
with zeros (`repeatpad`), which is what CLAP checkpoints were trained on. Files are read in blocks, so that memory
doesn't grow with their length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from clapboard.errors import AudioError

SAMPLE_RATE = 48_000
WINDOW_S = 10.0
WINDOW_SAMPLES = 480_000

Waveform = npt.NDArray[np.float32]
"""Float32 in [-1, 1]: `[T]`, or `[T, C]` as it comes from a decoder."""

_BLOCK_SAMPLES = 1 << 16
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})
# Containers that hold audio themselves. Playlists, which could name other files and hosts, stay out.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpeg,mpegts,ogg,"
    "tak,tta,voc,w64,wav,wv"
)


@dataclass(frozen=True)
class Window:
    """What the model sees of a recording: `waveform` is `[480000]`, its content lies at `start_s`–`end_s`."""

    index: int
    start_s: float
    end_s: float
    waveform: Waveform


def windows(path: Path, *, name: str = "") -> Iterator[Window]:
    """The recording's windows in order, each ready for the model. Errors call it `name`, or else by its file's name.

    Raises `AudioError` if the file is no audio that can be used, on the first window that can't be given.
    """
    name = name or path.name
    held: Waveform = np.zeros(0, np.float32)  # the last full window already given, then what came after it
    given = 0
    for block in blocks(path, name=name):
        held = np.concatenate([held, block])
        while held.size >= WINDOW_SAMPLES * (1 + (given > 0)):
            held = held[WINDOW_SAMPLES * (given > 0) :]
            yield _window(given, given * WINDOW_SAMPLES, held[:WINDOW_SAMPLES])
            given += 1
    if held.size == 0:
        raise AudioError(f"{name} holds no samples: replace it with a recording that has sound in it.")
    if given == 0:
        yield _window(0, 0, held)
    elif (rest := held.size - WINDOW_SAMPLES) > 0:
        yield _window(given, (given - 1) * WINDOW_SAMPLES + rest, held[-WINDOW_SAMPLES:])


def window_waveform(waveform: Waveform) -> Waveform:
    """The same policy for samples in memory: `[T]` → `[W, 480000]`."""
    num_samples = waveform.size
    if num_samples <= WINDOW_SAMPLES:
        return repeat_pad(waveform)[None]
    starts = [*range(0, num_samples - WINDOW_SAMPLES, WINDOW_SAMPLES), num_samples - WINDOW_SAMPLES]
    return np.stack([waveform[start : start + WINDOW_SAMPLES] for start in starts])


def num_windows(num_samples: int) -> int:
    """How many windows a recording of so many samples at 48 kHz has."""
    return max(1, math.ceil(num_samples / WINDOW_SAMPLES))


def repeat_pad(waveform: Waveform) -> Waveform:
    """`[T]`, T ≤ 480000, repeated as often as it fits wholly, then zeros: `[480000]`."""
    repeats = WINDOW_SAMPLES // waveform.size
    padded = np.zeros(WINDOW_SAMPLES, np.float32)
    padded[: repeats * waveform.size] = np.tile(waveform, repeats)
    return padded


def read(path: Path) -> Waveform:
    """The whole recording, mono at 48 kHz: `[T]`. For short files; `windows` reads any length.

    Raises `AudioError` if the file is no audio that can be used.
    """
    parts = list(blocks(path))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def blocks(path: Path, *, name: str = "") -> Iterator[Waveform]:
    """The recording as consecutive pieces of mono float32 in [-1, 1] at 48 kHz, `[t]` each.

    Integer formats fill [-1, 1] by themselves. A float file whose peak is above 1 is scaled down as a whole by that
    peak, which takes a first pass; the small overshoot of lossy decoders and of the resampler is clipped.

    Raises `AudioError` if the file can't be decoded, breaks off with an error, or holds NaN or infinite samples.
    """
    name = name or path.name
    if not path.is_file() or path.stat().st_size == 0:
        raise AudioError(f"{name} is empty: export or upload it again.")
    with path.open("rb") as file:
        try:
            sound = soundfile.SoundFile(file)
        except soundfile.LibsndfileError:
            file.seek(0)
            yield from _resampled(name, _pyav_blocks(name, file), gain=1.0)
            return
        with sound:
            gain = 1.0
            if sound.subtype in _FLOAT_SUBTYPES:
                gain = 1.0 / max(1.0, _peak(_soundfile_blocks(name, sound)))
                sound.seek(0)
            rated = ((sound.samplerate, block) for block in _soundfile_blocks(name, sound))
            yield from _resampled(name, rated, gain=gain)


def _window(index: int, start: int, waveform: Waveform) -> Window:
    end = start + waveform.size
    return Window(index, start / SAMPLE_RATE, end / SAMPLE_RATE, repeat_pad(waveform))


def _soundfile_blocks(name: str, sound: soundfile.SoundFile) -> Iterator[Waveform]:
    """Raw pieces `[t, C]` at the file's own rate."""
    try:
        while (block := sound.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)).size:
            yield block
    except soundfile.LibsndfileError:
        raise AudioError(f"{name} is damaged: it can't be decoded to its end. Export or upload it again.") from None


def _pyav_blocks(name: str, file: IO[bytes]) -> Iterator[tuple[int, Waveform]]:
    """Pairs of sample rate and raw piece `[t, C]` from whatever else FFmpeg can read."""
    try:
        with av.open(file, options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}) as container:
            if not container.streams.audio:
                raise AudioError(f"{name} has no audio track: choose a file with sound.")
            planar = av.AudioResampler(format="fltp")
            for frame in container.decode(audio=0):
                for part in planar.resample(frame):
                    yield part.sample_rate, part.to_ndarray().T
    except (av.FFmpegError, ValueError):
        raise AudioError(
            f"{name} is no audio that can be decoded: it is damaged, or not what its name says. Export it again, "
            "for example as WAV, FLAC or Ogg."
        ) from None


def _peak(pieces: Iterable[Waveform]) -> float:
    return max((float(np.abs(piece).max()) for piece in pieces), default=0.0)


def _resampled(name: str, pieces: Iterable[tuple[int, Waveform]], *, gain: float) -> Iterator[Waveform]:
    resample: partial[Waveform] | None = None
    rate = 0
    for piece_rate, piece in pieces:
        if not np.isfinite(piece).all():
            raise AudioError(f"{name} holds NaN or infinite samples: repair or re-export it.")
        if resample is None:
            rate = piece_rate
            resample = partial(soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32").resample_chunk)
        elif piece_rate != rate:
            raise AudioError(f"{name} changes its sample rate midway: re-export it at one rate.")
        mono = piece.mean(axis=1, dtype=np.float32) * np.float32(gain)  # [t, C] → [t]
        yield np.clip(mono if rate == SAMPLE_RATE else resample(mono), -1.0, 1.0)
    if resample is not None and rate != SAMPLE_RATE:
        yield np.clip(resample(np.zeros(0, np.float32), last=True), -1.0, 1.0)
