"""Synthesises a pump in five states, which no label name tells apart and no checkpoint was trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from clapboard.audio.windows import SAMPLE_RATE, Waveform

_Signal = npt.NDArray[np.float64]

FAULT_DB = -6.0
"""The loudness of the fault relative to the pump."""


def pump(state: str, seed: int, duration_s: float) -> Waveform:
    """A recording of the pump in that state, `[T]` at 48 kHz. Each seed is another pump, speed and microphone."""
    rng = np.random.default_rng(seed)
    num_samples = round(duration_s * SAMPLE_RATE)
    running = _running(rng, num_samples)
    fault = STATES[state](rng, num_samples)
    gain = 10 ** (FAULT_DB / 20) * rng.uniform(0.8, 1.25) / max(float(fault.std()), 1e-9)
    sound = running / running.std() + gain * fault
    return (rng.uniform(0.1, 0.5) * sound / np.abs(sound).max()).astype(np.float32)


def _running(rng: np.random.Generator, num_samples: int) -> _Signal:
    """A motor's hum and its harmonics in coloured noise."""
    seconds = np.arange(num_samples) / SAMPLE_RATE
    wander = 1 + 0.004 * np.sin(2 * np.pi * rng.uniform(0.2, 1.0) * seconds)
    phase = 2 * np.pi * np.cumsum(rng.uniform(40, 120) * wander) / SAMPLE_RATE
    hum = sum(rng.uniform(0.2, 1) / k**0.7 * np.sin(k * phase + rng.uniform(0, 2 * np.pi)) for k in range(1, 14))
    spectrum = np.fft.rfft(rng.normal(size=num_samples))
    hertz = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE) + 30
    noise = np.fft.irfft(spectrum * hertz ** rng.uniform(-1.2, -0.3), num_samples)
    return rng.uniform(0.5, 1.0) * hum / np.std(hum) + noise / noise.std()


def _normal(_rng: np.random.Generator, num_samples: int) -> _Signal:
    return np.zeros(num_samples)


def _knocking(rng: np.random.Generator, num_samples: int) -> _Signal:
    """A dull knock a few times a second."""

    def knock(seconds: _Signal) -> _Signal:
        return np.sin(2 * np.pi * 200 * seconds) * np.exp(-60 * seconds)

    return _repeated(rng, num_samples, rng.uniform(0.28, 0.4), 0.06, knock)


def _rattling(rng: np.random.Generator, num_samples: int) -> _Signal:
    """Short bursts of noise, twelve to twenty a second."""

    def burst(seconds: _Signal) -> _Signal:
        return rng.normal(size=seconds.size) * np.exp(-300 * seconds)

    return _repeated(rng, num_samples, rng.uniform(0.05, 0.08), 0.015, burst)


def _squealing(rng: np.random.Generator, num_samples: int) -> _Signal:
    """A high tone that wavers, and comes and goes."""
    seconds = np.arange(num_samples) / SAMPLE_RATE
    tremble = 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(4, 7) * seconds)
    tone = np.sin(2 * np.pi * np.cumsum(rng.uniform(2500, 5000) * tremble) / SAMPLE_RATE)
    return tone * (np.sin(2 * np.pi * rng.uniform(0.8, 1.5) * seconds) > 0)


def _hissing(rng: np.random.Generator, num_samples: int) -> _Signal:
    """Leaking air: high noise whose level rises and falls."""
    spectrum = np.fft.rfft(rng.normal(size=num_samples))
    hertz = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum * (hertz > rng.uniform(5000, 7000)), num_samples)
    seconds = np.arange(num_samples) / SAMPLE_RATE
    return noise * (1 + np.sin(2 * np.pi * rng.uniform(0.3, 0.6) * seconds))


def _repeated(
    rng: np.random.Generator, num_samples: int, period_s: float, length_s: float, event: Callable[[_Signal], _Signal]
) -> _Signal:
    """Events at regular intervals, each of random loudness. `event` maps seconds since its start to a signal."""
    signal = np.zeros(num_samples)
    for start_s in np.arange(rng.uniform(0, period_s), num_samples / SAMPLE_RATE - length_s, period_s):
        start, length = round(start_s * SAMPLE_RATE), round(length_s * SAMPLE_RATE)
        signal[start : start + length] += rng.uniform(0.5, 1) * event(np.arange(length) / SAMPLE_RATE)
    return signal


STATES = {
    "pump normal": _normal,
    "pump knocking": _knocking,
    "pump rattling": _rattling,
    "pump squealing": _squealing,
    "pump leaking": _hissing,
}
