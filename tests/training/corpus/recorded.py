"""Small recordings and data sets for the tests of this folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

from clapboard.errors import TrainingError
from training.corpus.build import Plan, build
from training.corpus.filters import Rules
from training.corpus.projects import LabelStudioAccess
from training.corpus.sources import open_source

RATE_HZ = 48_000


def noise(seed: int, duration_s: float = 0.4) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Noise of a length, another for each seed, that 16 bits hold exactly: `[T]` at 48 kHz."""
    drawn = np.random.default_rng(seed).integers(-9_000, 9_000, round(duration_s * RATE_HZ))
    return (drawn / 32_768).astype(np.float32)


def record(path: Path, seed: int, duration_s: float = 0.4) -> Path:
    """The path, now a file of that noise; its suffix decides on the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seed, duration_s), RATE_HZ, subtype="PCM_16")
    return path


def content(seed: int, kind: str = "WAV") -> bytes:
    """The bytes of such a file."""
    file = io.BytesIO()
    soundfile.write(file, noise(seed), RATE_HZ, format=kind, subtype="PCM_16")
    return file.getvalue()


def no_label_studio() -> LabelStudioAccess:
    """For sources that have no need of it."""
    raise TrainingError("nobody should have asked Label Studio")


def data_set(
    folder: Path, num_samples: int, *, samples_per_shard: int = 4, duration_s: float = 0.05, share: float = 0.0
) -> Path:
    """A data set of so many sounds, each captioned by its seed and alone in its group."""
    sounds = folder / "sounds"
    for seed in range(num_samples):
        record(sounds / f"{seed}.wav", seed, duration_s).with_suffix(".txt").write_text(f"sound number {seed}")
    rules = Rules(min_s=0.0, languages=())
    plan = Plan(rules, samples_per_shard=samples_per_shard, validation_share=share, threads=1)
    build([open_source(str(sounds), no_label_studio)], folder / "set", plan)
    return folder / "set"
