"""Synthesises sounds of many kinds with numpy: the same kind, seed and duration always give the same samples.

The embedded checkpoint learns from them the kinds that its real recordings lack, and the demo uses them as clips.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from training.sounds import animals, nature, objects, people, signals
from training.sounds.waveforms import Signal, band, noise, samples

Generator = Callable[[np.random.Generator, int], Signal]

KINDS: Mapping[str, Generator] = MappingProxyType(
    {
        # The ten kinds of ESC-10, with its names
        "dog bark": animals.dog_bark,
        "rooster": animals.rooster,
        "baby cry": people.baby_cry,
        "person sneeze": people.person_sneeze,
        "rain": nature.rain,
        "sea waves": nature.sea_waves,
        "fire crackling": nature.fire_crackling,
        "clock tick": objects.clock_tick,
        "helicopter": objects.helicopter,
        "chainsaw": objects.chainsaw,
        # Other kinds
        "bird chirp": animals.bird_chirp,
        "cricket": animals.cricket,
        "speech": people.speech,
        "applause": people.applause,
        "footsteps": people.footsteps,
        "whistle": people.whistle,
        "wind": nature.wind,
        "thunder": nature.thunder,
        "engine": objects.engine,
        "bell": objects.bell,
        "knocking": objects.knocking,
        "siren": signals.siren,
        "alarm beep": signals.alarm_beep,
        "phone ring": signals.phone_ring,
        "pure tone": signals.pure_tone,
        "music": signals.music,
        "white noise": signals.white_noise,
        "silence": signals.silence,
    }
)


def synthesise(kind: str, seed: int, duration_s: float) -> npt.NDArray[np.float32]:
    """A sound of the kind with a peak between −18 and −1 dBFS: `[T]` float32 at 48 kHz.

    Raises `KeyError` if the kind is not in `KINDS`.
    """
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed])
    num_samples = samples(duration_s)
    sound = KINDS[kind](rng, num_samples)
    if kind == "silence":
        return sound.astype(np.float32)
    sound = _in_a_room(rng, sound)
    sound = sound / (np.abs(sound).max() + 1e-9)
    sound += 10 ** (rng.uniform(-80, -45) / 20) * noise(rng, num_samples, rng.uniform(0, 6))  # the recorder's own noise
    peak = 10 ** (rng.uniform(-18, -1) / 20)
    return (sound * (peak / np.abs(sound).max())).astype(np.float32)


def _in_a_room(rng: np.random.Generator, sound: Signal) -> Signal:
    """The sound with a reverberation of random strength and length, mostly slight, in a microphone's range."""
    length = samples(rng.uniform(0.05, 0.6))
    tail = rng.standard_normal(length) * np.exp(-np.linspace(0, 6, length))
    tail *= rng.choice([0.0, 0.1, 0.3]) * rng.uniform(0.3, 1) / np.sqrt((tail**2).sum())
    tail[0] += 1.0
    size = 1 << int(np.ceil(np.log2(sound.size + length)))
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: sound.size]
    return band(wet, rng.uniform(20, 90), rng.uniform(9_000, 22_000), order=2)
