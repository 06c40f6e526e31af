"""Files as people have them: joined, cut, streamed, with headers that claim something else, with holes in them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

from tests.support.recordings import Samples, encode

RATE_HZ = 16_000


def written(samples: Samples, kind: str, subtype: str = "", *, rate: int = RATE_HZ) -> bytes:
    """The samples, `[t]` or `[t, C]`, in one of libsndfile's formats."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype or None)
    return file.getvalue()


def encoded(path: Path, samples: Samples, codec: str, *, rate: int = RATE_HZ) -> bytes:
    """The mono samples in FFmpeg's codec; `path` decides on the container."""
    return encode(path, samples, rate, codec).read_bytes()


def streamed_mp3(path: Path, samples: Samples, *, bit_rate: int = 0) -> bytes:
    """An MP3 as it is written to a pipe: variable bit rate, and no frame that counts the others."""
    with av.open(str(path), "w", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=RATE_HZ, layout="mono", options={"q": "4"})
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def with_hole(content: bytes, num_bytes: int = 4_096) -> bytes:
    """Zeros in its middle, in the place of what was there."""
    middle = len(content) // 2
    return content[:middle] + bytes(num_bytes) + content[middle + num_bytes :]


def with_sizes(content: bytes, kind: str, change: Callable[[int], int]) -> bytes:
    """Every size that the header of a WAV, AIFF, AU, CAF, RF64 or Wave64 file claims, changed."""
    changed = bytearray(content)
    for at, form in _sizes(content, kind):
        (size,) = struct.unpack_from(form, content, at)
        struct.pack_into(form, changed, at, change(size))
    return bytes(changed)


def claiming_frames(mp3: bytes, share: float) -> bytes:
    """The MP3, whose first frame claims that share of the frames."""
    at = max(mp3.find(b"Xing", 0, 200), mp3.find(b"Info", 0, 200))
    (frames,) = struct.unpack_from(">I", mp3, at + 8)
    return mp3[: at + 8] + struct.pack(">I", round(frames * share)) + mp3[at + 12 :]


def _sizes(content: bytes, kind: str) -> list[tuple[int, str]]:
    """Where sizes lie, and how they are written."""
    if kind == "AIFF":
        return [(4, ">I"), (content.index(b"SSND") + 4, ">I")]
    if kind == "AU":
        return [(8, ">I")]
    if kind == "CAF":
        return [(content.index(b"data") + 4, ">q")]
    if kind == "W64":
        return [(16, "<q"), (content.index(b"data") + 16, "<q")]
    if kind == "RF64":
        return [(20, "<q"), (28, "<q")]
    return [(4, "<I"), (content.index(b"data") + 4, "<I")]


def noisy(duration_s: float, seed: int = 0, rate: int = RATE_HZ) -> Samples:
    """Noise that no place in it is like another, and that doesn't end in silence."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(duration_s * rate)).astype(np.float32)
