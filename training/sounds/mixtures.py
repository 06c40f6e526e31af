"""Longer recordings made of short clips, so that it is known when each sound is heard.

The same seed gives the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clapboard.audio.windows import SAMPLE_RATE, Waveform
from training.sounds.waveforms import noise

_TRIM_DB = 30.0
_BLOCK = SAMPLE_RATE // 50
_FADE = SAMPLE_RATE // 100
_OVERLAP_FADE = SAMPLE_RATE // 4  # between clips of a background


@dataclass(frozen=True)
class TimedSound:
    """A sound of this kind is heard from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    kind: str


@dataclass(frozen=True, eq=False)
class Mixture:
    """A recording `[T]` at 48 kHz and the sounds in it, by their start."""

    waveform: Waveform
    sounds: tuple[TimedSound, ...]


@dataclass(frozen=True)
class Scene:
    """How a mixture is made: its length, how many sounds, how loud they are above the background, how many overlap."""

    duration_s: float = 60.0
    num_sounds: tuple[int, int] = (5, 9)
    above_background_db: tuple[float, float] = (6.0, 20.0)
    background_db: tuple[float, float] = (-45.0, -30.0)  # full scale is 0
    overlapping: float = 0.15  # share of sounds that may begin while another kind is heard


def mixture(
    clips: Mapping[str, Sequence[Waveform]],
    backgrounds: Sequence[Waveform],
    rng: np.random.Generator,
    scene: Scene = Scene(),
) -> Mixture:
    """Clips of random kinds at random moments, each trimmed to what is heard of it, over a background.

    `clips` are by kind. The background is made of `backgrounds`, of one kind, or of noise if there are none.
    """
    num_samples = round(scene.duration_s * SAMPLE_RATE)
    level = 10 ** (rng.uniform(*scene.background_db) / 20)
    whole = level * background(backgrounds, num_samples, rng)
    kinds = sorted(clips)
    placed: list[tuple[int, int, str]] = []
    for _ in range(int(rng.integers(scene.num_sounds[0], scene.num_sounds[1] + 1))):
        kind = kinds[rng.integers(len(kinds))]
        sound = trimmed(clips[kind][int(rng.integers(len(clips[kind])))])
        start = _place(placed, sound.size, num_samples, kind, rng.random() < scene.overlapping, rng)
        if start is None:
            continue
        gain = level * 10 ** (rng.uniform(*scene.above_background_db) / 20) / max(_loudest_rms(sound), 1e-6)
        whole[start : start + sound.size] += gain * faded(sound, _FADE)
        placed.append((start, start + sound.size, kind))
    peak = float(np.abs(whole).max())
    waveform = (whole / max(1.0, peak / 0.99)).astype(np.float32)
    sounds = [TimedSound(start / SAMPLE_RATE, end / SAMPLE_RATE, kind) for start, end, kind in sorted(placed)]
    return Mixture(waveform, tuple(sounds))


def background(clips: Sequence[Waveform], num_samples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Clips in random order, faded into each other, or coloured noise if there are none: `[T]` of unit RMS."""
    if not clips:
        return noise(rng, num_samples, rng.uniform(0, 6))
    whole: npt.NDArray[np.float64] = np.zeros(num_samples + SAMPLE_RATE * 10)
    end = _OVERLAP_FADE
    while end < num_samples + _OVERLAP_FADE:
        clip = clips[int(rng.integers(len(clips)))]
        rms = max(float(np.sqrt(np.mean(np.square(clip, dtype=np.float64)))), 1e-6)
        piece = faded(np.roll(clip, rng.integers(clip.size)) / rms, _OVERLAP_FADE)
        piece = piece[: whole.size - end + _OVERLAP_FADE]
        whole[end - _OVERLAP_FADE : end - _OVERLAP_FADE + piece.size] += piece
        end += piece.size - _OVERLAP_FADE
    whole = whole[_OVERLAP_FADE : num_samples + _OVERLAP_FADE]
    return whole / max(float(np.sqrt(np.mean(whole**2))), 1e-9)


def trimmed(sound: Waveform) -> Waveform:
    """The sound without what precedes and follows all that is within 30 dB of its loudest moment (20 ms)."""
    rms = np.sqrt(np.mean(np.square(sound[: sound.size // _BLOCK * _BLOCK].reshape(-1, _BLOCK)), axis=1))
    heard = np.flatnonzero(rms >= rms.max() * 10 ** (-_TRIM_DB / 20))
    return sound[heard[0] * _BLOCK : (heard[-1] + 1) * _BLOCK]


def faded(sound: npt.NDArray[np.floating], num_samples: int) -> npt.NDArray[np.float64]:
    """The sound with both ends faded over so many samples, so that it doesn't click."""
    length = min(num_samples, sound.size // 2)
    gain = np.ones(sound.size)
    gain[:length] = np.linspace(0, 1, length)
    gain[sound.size - length :] = np.linspace(1, 0, length)
    return sound * gain


def _loudest_rms(sound: Waveform) -> float:
    """The RMS of its loudest half second."""
    power = np.convolve(np.square(sound[::16], dtype=np.float64), np.ones(1500) / 1500, "valid")
    whole = float(np.mean(np.square(sound, dtype=np.float64)))
    return float(np.sqrt(max(float(power.max()), whole)))


def _place(
    placed: Sequence[tuple[int, int, str]], length: int, total: int, kind: str, overlaps: bool, rng: np.random.Generator
) -> int | None:
    """Where the sound begins, half a second away from all others, or at least from its own kind; None without room."""
    gap = SAMPLE_RATE // 2
    for _ in range(40):
        start = int(rng.integers(0, max(1, total - length)))
        near = [other for first, last, other in placed if start < last + gap and first < start + length + gap]
        if kind not in near and (overlaps or not near):
            return start
    return None
