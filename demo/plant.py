"""Synthesises a plant in order and out of order: only the combination of three sounds tells the states apart.

A valve whines up or down, while a motor hums or a press thumps, with or without the ticks of a ratchet. Each sound, and
each pair of sounds, is equally frequent in both states. No checkpoint was trained on any of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clapboard.audio.windows import SAMPLE_RATE, Waveform

_Signal = npt.NDArray[np.float64]

IN_ORDER, OUT_OF_ORDER = "plant in order", "plant out of order"
STATES = (IN_ORDER, OUT_OF_ORDER)


def plant(state: str, seed: int, duration_s: float) -> Waveform:
    """A recording of the plant in that state, `[T]` at 48 kHz. Consecutive seeds go through the combinations."""
    rng = np.random.default_rng(seed)
    num_samples = round(duration_s * SAMPLE_RATE)
    motor_runs, ratchet_runs = bool(seed & 2), bool(seed & 4)
    rises = motor_runs ^ ratchet_runs ^ (state == OUT_OF_ORDER)
    machine = _motor(rng, num_samples) if motor_runs else _press(rng, num_samples)
    sound = 0.7 * machine / machine.std() + _valve(rng, num_samples, rises=rises)
    if ratchet_runs:
        sound += _ratchet(rng, num_samples)
    sound += 0.05 * rng.standard_normal(num_samples)
    return (rng.uniform(0.2, 0.8) * sound / np.abs(sound).max()).astype(np.float32)


def _motor(rng: np.random.Generator, num_samples: int) -> _Signal:
    """A hum around 100 Hz with a few harmonics."""
    seconds = np.arange(num_samples) / SAMPLE_RATE
    drift = 1 + 0.01 * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * seconds)
    phase = 2 * np.pi * np.cumsum(rng.uniform(97, 103) * drift) / SAMPLE_RATE
    hum = np.zeros(num_samples)
    for harmonic in range(1, 6):
        gain = rng.uniform(0.7, 1.2) / harmonic**0.7
        hum += gain * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    return hum


def _press(rng: np.random.Generator, num_samples: int) -> _Signal:
    """Dull thumps, four to five a second."""
    signal = np.zeros(num_samples)
    length = round(0.12 * SAMPLE_RATE)
    seconds = np.arange(length) / SAMPLE_RATE
    for start in _starts(rng, num_samples, 1 / rng.uniform(4.3, 4.7), length):
        thump = _lowpassed(rng.standard_normal(length), 500.0) * np.minimum(1, seconds / 0.003)
        signal[start : start + length] += rng.uniform(0.8, 1) * thump * np.exp(-seconds / 0.03)
    return signal


def _ratchet(rng: np.random.Generator, num_samples: int) -> _Signal:
    """Sharp clicks, seven to nine a second."""
    signal = np.zeros(num_samples)
    length = round(0.03 * SAMPLE_RATE)
    seconds = np.arange(length) / SAMPLE_RATE
    click = np.diff(_lowpassed(rng.standard_normal(length + 1), 6000.0)) * np.exp(-seconds / 0.004)
    click *= 3 / np.abs(click).max()
    for start in _starts(rng, num_samples, 1 / rng.uniform(7.7, 8.3), length):
        signal[start : start + length] += rng.uniform(0.8, 1) * click
    return signal


def _valve(rng: np.random.Generator, num_samples: int, *, rises: bool) -> _Signal:
    """Whines of more than an octave around 2.2 kHz, one after the other, all up or all down."""
    signal = np.zeros(num_samples)
    centre_hz, octaves = rng.uniform(2100, 2300), np.log2(rng.uniform(3.0, 3.4))
    length = round(rng.uniform(0.65, 0.75) * SAMPLE_RATE)
    course = np.linspace(-0.5, 0.5, length) * (1 if rises else -1)
    whine = np.sin(2 * np.pi * np.cumsum(centre_hz * 2 ** (octaves * course)) / SAMPLE_RATE) * np.sqrt(
        np.hanning(length)
    )
    whine *= rng.uniform(1.0, 1.4)
    start = round(rng.uniform(0, 0.4) * SAMPLE_RATE)
    while start < num_samples:
        part = whine[: num_samples - start]
        signal[start : start + part.size] += part
        start += length + round(rng.uniform(0.05, 0.2) * SAMPLE_RATE)
    return signal


def _starts(rng: np.random.Generator, num_samples: int, period_s: float, length: int) -> list[int]:
    """The first samples of events that come once a period and end within the recording."""
    first = rng.uniform(0, 0.1) * SAMPLE_RATE
    return [round(start) for start in np.arange(first, num_samples - length, period_s * SAMPLE_RATE)]


def _lowpassed(signal: _Signal, cutoff_hz: float) -> _Signal:
    spectrum = np.fft.rfft(signal)
    hertz = np.fft.rfftfreq(signal.size, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.sqrt(1 + (hertz / cutoff_hz) ** 6), signal.size)
