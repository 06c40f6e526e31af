"""Spoken words through espeak-ng, where that program is installed."""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from clapboard.audio.windows import SAMPLE_RATE

_PROGRAM = "espeak-ng"
_VOICES = ("en", "en-us", "en-gb-scotland", "de", "fr", "es", "it", "pt", "ru", "pl", "nl", "sv", "tr", "fi", "hu")
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
_WORDS = [
    "good",
    "morning",
    "people",
    "water",
    "the",
    "window",
    "is",
    "open",
    "seven",
    "nine",
    "where",
    "are",
    "you",
    "going",
    "today",
    "nobody",
    "knows",
    "what",
    "comes",
    "next",
    "please",
    "leave",
    "a",
    "message",
    "after",
    "we",
    "had",
    "lunch",
    "in",
    "town",
    "my",
    "sister",
    "bought",
    "two",
    "tickets",
    "for",
    "tomorrow",
    "evening",
    "and",
    "then",
    "it",
    "became",
    "quiet",
    "again",
    "banana",
    "kilometre",
    "orange",
    "Monday",
    "August",
    "remember",
    "between",
    "little",
]


def is_available() -> bool:
    """Whether espeak-ng is installed."""
    return shutil.which(_PROGRAM) is not None


def speak(seed: int) -> npt.NDArray[np.float32]:
    """A sentence of random words in a random voice: `[T]` at 48 kHz, at most 10 s.

    Raises `subprocess.CalledProcessError` if espeak-ng fails.
    """
    rng = np.random.default_rng(seed)
    sentence = " ".join(rng.choice(_WORDS, rng.integers(3, 20)))
    voice = f"{rng.choice(_VOICES)}+{rng.choice(_VARIANTS)}"
    speed, pitch = str(rng.integers(110, 230)), str(rng.integers(15, 85))
    command = [_PROGRAM, "--stdout", "-v", voice, "-s", speed, "-p", pitch, sentence]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, sample_rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    waveform: npt.NDArray[np.float32] = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    return waveform[: 10 * SAMPLE_RATE].astype(np.float32)
