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


def data_uri(seed: int, duration_s: float = 0.02, sample_rate: int = 48_000) -> str:
    """A wav of noise, another for each seed, inside its own address."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(duration_s * sample_rate)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise, sample_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
