"""File → windows: the only decode, mono, resample and window policy, for serving, training and evaluation alike.

A recording becomes mono float32 at 48 kHz and is cut into fixed 10 s windows, never at random: 0–10 s, 10–20 s, …,
and a last one aligned to the end. A recording shorter than 10 s is repeated a whole number of times and then padded
with zeros (`repeatpad`), which is what CLAP checkpoints were trained on. Files are read in blocks, so that memory
doesn't grow with their length.
"""

from __future__ import annotations

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

AudioFile = Path | IO[bytes]
"""Where a recording lies: a file on disk, or one that is open or in memory; that one is closed after it was read."""

_BLOCK_SAMPLES = 1 << 16
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})
_FLOAT_CODECS = ("pcm_f", "wavpack")
_UNKNOWN_FRAMES = (1 << 63) - 1
_ROUNDING_SAMPLES = SAMPLE_RATE // 20
_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 1_000_000
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


@dataclass(frozen=True)
class Span:
    """A piece of a recording, from where to where in seconds."""

    start_s: float
    end_s: float

    def __str__(self) -> str:
        return f"{self.start_s:g}–{self.end_s:g} s"


def windows(path: Path, *, name: str = "", span: Span | None = None) -> Iterator[Window]:
    """The recording's windows in order, each ready for the model. Errors call it `name`, or else by its file's name.

    With a `span` it is as if that piece were the whole recording. Raises `AudioError` if the file is no audio that can
    be used, or ends before the piece does, on the first window that can't be given.
    """
    name = name or path.name
    before: Waveform = np.zeros(0, np.float32)
    for index, piece in enumerate(regrouped(piece_blocks(path, name=name, span=span), WINDOW_SAMPLES)):
        missing = WINDOW_SAMPLES - piece.size if index else 0
        whole = np.concatenate([before[WINDOW_SAMPLES - missing :], piece])
        yield _window(index, index * WINDOW_SAMPLES - missing, whole)
        before = piece
    if before.size == 0:
        raise no_samples(name)


def window_waveform(waveform: Waveform) -> Waveform:
    """The same policy for samples in memory: `[T]` → `[W, 480000]`."""
    num_samples = waveform.size
    if num_samples <= WINDOW_SAMPLES:
        return repeat_pad(waveform)[None]
    starts = [*range(0, num_samples - WINDOW_SAMPLES, WINDOW_SAMPLES), num_samples - WINDOW_SAMPLES]
    return np.stack([waveform[start : start + WINDOW_SAMPLES] for start in starts])


def repeat_pad(waveform: Waveform) -> Waveform:
    """`[T]`, T ≤ 480000, repeated as often as it fits wholly, then zeros: `[480000]`."""
    repeats = WINDOW_SAMPLES // waveform.size
    padded = np.zeros(WINDOW_SAMPLES, np.float32)
    padded[: repeats * waveform.size] = np.tile(waveform, repeats)
    return padded


def read(source: AudioFile, *, name: str = "") -> Waveform:
    """The whole recording, mono at 48 kHz: `[T]`. For short files; `windows` reads any length.

    Raises `AudioError` if the file is no audio that can be used.
    """
    waveform = np.concatenate([np.zeros(0, np.float32), *blocks(source, name=name)])
    if waveform.size == 0:
        raise no_samples(_name_of(source, name))
    return waveform


def blocks(source: AudioFile, *, name: str = "") -> Iterator[Waveform]:
    """The recording as consecutive pieces of mono float32 in [-1, 1] at 48 kHz, `[t]` each.

    Integer formats fill [-1, 1] by themselves. A float file whose peak is above 1 is scaled down as a whole by that
    peak, which takes a first pass; the small overshoot of lossy decoders and of the resampler is clipped.

    Raises `AudioError` if the file can't be decoded, breaks off with an error, or holds NaN or infinite samples.
    """
    name = _name_of(source, name)
    with _open(source, name) if isinstance(source, Path) else source as file:
        sound = _sound_file(file)
        yield from _from_soundfile(name, sound) if sound else _from_pyav(name, file)


def piece_blocks(path: Path, *, name: str = "", span: Span | None = None) -> Iterator[Waveform]:
    """The recording's `blocks`, or what of them lies in the span. Raises `AudioError` also if it ends before that."""
    name = name or path.name
    return blocks(path, name=name) if span is None else _cut(blocks(path, name=name), span, name)


def _cut(pieces: Iterable[Waveform], span: Span, name: str) -> Iterator[Waveform]:
    """Of consecutive pieces, what lies in the span; an end that was rounded may lie a little behind the last sample."""
    start, end = round(span.start_s * SAMPLE_RATE), round(span.end_s * SAMPLE_RATE)
    if not 0 <= start < end:
        raise AudioError(f"{span} of {name} is no piece: give a start of 0 or more, and an end behind it.")
    num_read = 0
    for piece in pieces:
        inside = piece[max(0, start - num_read) : max(0, end - num_read)]
        num_read += piece.size
        if inside.size:
            yield inside
        if num_read >= end:
            return
    if end - num_read > _ROUNDING_SAMPLES or start >= num_read:
        raise AudioError(f"{name} is {num_read / SAMPLE_RATE:.1f} s long: {span} isn't all in it.")


def regrouped(pieces: Iterable[Waveform], num_samples: int) -> Iterator[Waveform]:
    """The same samples in pieces of `num_samples`; the last one may be shorter."""
    held: list[Waveform] = []
    num_held = 0
    for piece in pieces:
        held.append(piece)
        num_held += piece.size
        if num_held >= num_samples:
            joined = np.concatenate(held)
            num_held %= num_samples
            full = joined.size - num_held
            yield from np.split(joined[:full], full // num_samples)
            held = [joined[full:]]
    if num_held:
        yield np.concatenate(held)


def _name_of(source: AudioFile, name: str) -> str:
    """What errors call the recording."""
    return name or (source.name if isinstance(source, Path) else "The recording")


def no_samples(name: str) -> AudioError:
    """What there is to say of a recording without any."""
    return AudioError(f"{name} holds no samples: replace it with a recording that has sound in it.")


def _window(index: int, start: int, waveform: Waveform) -> Window:
    end = start + waveform.size
    return Window(index, start / SAMPLE_RATE, end / SAMPLE_RATE, repeat_pad(waveform))


def _open(path: Path, name: str) -> IO[bytes]:
    if not path.is_file():
        raise AudioError(f"{name} doesn't exist, or is no file: check its path.")
    if path.stat().st_size == 0:
        raise AudioError(f"{name} is empty: export or upload it again.")
    try:
        return path.open("rb")
    except OSError as error:
        raise AudioError(f"{name} can't be opened ({error.strerror}): check its permissions.") from None


def _sound_file(file: IO[bytes]) -> soundfile.SoundFile | None:
    """The file as soundfile sees it, unless that can't read it to its end: then PyAV may."""
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: its name ends in .raw, whatever it holds
        file.seek(0)
        return None
    if sound.frames < _UNKNOWN_FRAMES:
        return sound
    sound.close()
    file.seek(0)
    return None


def _from_soundfile(name: str, sound: soundfile.SoundFile) -> Iterator[Waveform]:
    with sound:
        gain = 1.0
        if sound.subtype in _FLOAT_SUBTYPES:
            gain = _gain(_soundfile_pieces(name, sound))
            sound.seek(0)
        yield from _resampled(name, _soundfile_pieces(name, sound), gain=gain)


def _soundfile_pieces(name: str, sound: soundfile.SoundFile) -> Iterator[tuple[int, Waveform]]:
    """Pairs of sample rate and raw piece `[t, C]`."""
    num_frames = max(1, _BLOCK_SAMPLES // sound.channels)
    try:
        while (piece := sound.read(num_frames, dtype="float32", always_2d=True)).size:
            yield sound.samplerate, piece
    except soundfile.LibsndfileError:
        raise AudioError(f"{name} is damaged: it can't be decoded to its end. Export or upload it again.") from None


def _from_pyav(name: str, file: IO[bytes]) -> Iterator[Waveform]:
    """Whatever else FFmpeg can read."""
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        with av.open(file, options=options, metadata_errors="ignore") as container:
            codec = container.streams.audio[0].codec_context if container.streams.audio else None
            if codec is None:
                raise AudioError(f"{name} has no audio track that can be decoded: choose a file with sound.")
            gain = 1.0
            if codec.name.startswith(_FLOAT_CODECS):
                gain = _gain(_pyav_pieces(container))
                container.seek(0)
            yield from _resampled(name, _pyav_pieces(container), gain=gain)
    except (av.FFmpegError, ValueError):
        raise AudioError(
            f"{name} is no audio that can be decoded: it is damaged, or not what its name says. Export it again, "
            "for example as WAV, FLAC or Ogg."
        ) from None


def _pyav_pieces(container: av.container.InputContainer) -> Iterator[tuple[int, Waveform]]:
    """Pairs of sample rate and raw piece `[t, C]`."""
    planar = av.AudioResampler(format="fltp")
    for frame in container.decode(audio=0):
        for part in planar.resample(frame):
            yield part.sample_rate, part.to_ndarray().T


def _gain(pieces: Iterable[tuple[int, Waveform]]) -> float:
    """The factor that brings a recording whose peak is above 1 down to 1."""
    return 1.0 / max(1.0, max((float(np.abs(piece).max()) for _, piece in pieces), default=0.0))


def _resampled(name: str, pieces: Iterable[tuple[int, Waveform]], *, gain: float) -> Iterator[Waveform]:
    resample: partial[Waveform] | None = None
    rate = 0
    for piece_rate, piece in pieces:
        if not np.isfinite(piece).all():
            raise AudioError(f"{name} holds NaN or infinite samples: repair or re-export it.")
        if resample is None:
            rate = piece_rate
            if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
                raise AudioError(f"{name} has a sample rate of {rate} Hz, which is no sound: re-export it at 48 kHz.")
            resample = partial(soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32").resample_chunk)
        elif piece_rate != rate:
            raise AudioError(f"{name} changes its sample rate midway: re-export it at one rate.")
        mono = (piece * np.float32(gain)).mean(axis=1, dtype=np.float32)  # [t, C] → [t]
        yield np.clip(mono if rate == SAMPLE_RATE else resample(mono), -1.0, 1.0)
    if resample is not None and rate != SAMPLE_RATE:
        yield np.clip(resample(np.zeros(0, np.float32), last=True), -1.0, 1.0)
