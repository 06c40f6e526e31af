"""Files of every kind that a person may upload, made from samples."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile

Samples = npt.NDArray[np.float32]


def sweep(duration_s: float, sample_rate: int = 48_000, *, seed: int = 0) -> Samples:
    """A rising tone under noise, `[T]`: no two places in it are alike."""
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    tone = 0.4 * np.sin(2 * np.pi * (300 + 40 * time_s) * time_s)
    noise = 0.05 * np.random.default_rng(seed).standard_normal(time_s.size)
    return (tone + noise).astype(np.float32)


def encode(path: Path, samples: Samples, sample_rate: int, codec: str) -> Path:
    """The path, now a file of mono samples `[T]` in FFmpeg's codec; its name decides on the container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate, layout="mono")
        stream.codec_context.open(strict=False)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = sample_rate, 0
        to_codec = av.AudioResampler(stream.codec_context.format, frame_size=stream.codec_context.frame_size or 1024)
        for part in [*to_codec.resample(frame), *to_codec.resample(None), None]:
            container.mux(stream.encode(part))
    return path


def silent_video(path: Path) -> Path:
    """The path, now a video file without an audio track."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(25):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    return path


def silent_flac(duration_s: float, *, claimed_s: float | None = None, rate: int = 8_000) -> bytes:
    """A mono FLAC of silence in the fewest bytes: about 7 kB an hour. Its header may claim another length.

    Source: RFC 9639, sections 8.2 (STREAMINFO) and 9 (frames; here with constant subframes).
    """
    most = 65_535
    num_left, frames = round(duration_s * rate), []
    claimed = round((duration_s if claimed_s is None else claimed_s) * rate)
    while num_left:
        num_samples = min(most, num_left)
        number = chr(len(frames)).encode("utf-8", "surrogatepass")
        head = b"\xff\xf8\x74\x08" + number + (num_samples - 1).to_bytes(2, "big")
        frame = head + _crc(head, 8, 0x07) + bytes(3)
        frames.append(frame + _crc(frame, 16, 0x8005))
        num_left -= num_samples
    info = most.to_bytes(2, "big") * 2 + bytes(6) + (rate << 44 | 15 << 36 | claimed).to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80\x00\x00\x22" + info + b"".join(frames)


def _crc(content: bytes, bits: int, polynomial: int) -> bytes:
    register = 0
    for byte in content:
        register ^= byte << (bits - 8)
        for _ in range(8):
            register = (register << 1 ^ (polynomial if register >> (bits - 1) & 1 else 0)) & ((1 << bits) - 1)
    return register.to_bytes(bits // 8, "big")


def data_uri(seed: int, duration_s: float = 0.02, sample_rate: int = 48_000) -> str:
    """A wav of noise, another for each seed, inside its own address."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(duration_s * sample_rate)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise, sample_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
