"""Building blocks of synthetic sound: coloured noise, filters, oscillators, envelopes, as float64 `[T]` at 48 kHz."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clapboard.audio.windows import SAMPLE_RATE

Signal = npt.NDArray[np.float64]


def noise(rng: np.random.Generator, num_samples: int, tilt_db: float = 0.0) -> Signal:
    """Gaussian noise `[T]` of unit RMS whose level falls by `tilt_db` per octave: 0 is white, 3 pink, 6 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    freqs_hz = np.maximum(np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE), 20.0)
    shaped = np.fft.irfft(spectrum * (freqs_hz / 1000.0) ** (-tilt_db / 6.02), num_samples)
    return shaped / (np.sqrt(np.mean(shaped**2)) + 1e-12)


def band(signal: Signal, low_hz: float, high_hz: float, order: int = 3) -> Signal:
    """The signal `[T]` between two frequencies, with Butterworth slopes of the given order and no phase shift."""
    freqs_hz = np.fft.rfftfreq(signal.size, 1 / SAMPLE_RATE)
    gain = 1.0 / np.sqrt(1.0 + (freqs_hz / high_hz) ** (2 * order))
    gain *= 1.0 / np.sqrt(1.0 + (low_hz / np.maximum(freqs_hz, 1e-3)) ** (2 * order))
    return np.fft.irfft(np.fft.rfft(signal) * gain, signal.size)


def resonate(signal: Signal, formants: Sequence[tuple[float, float, float]]) -> Signal:
    """The signal `[T]` through parallel resonances, each (centre in Hz, bandwidth in Hz, gain)."""
    freqs_hz = np.fft.rfftfreq(signal.size, 1 / SAMPLE_RATE)
    response = np.zeros_like(freqs_hz)
    for centre_hz, width_hz, gain in formants:
        response += gain / (1.0 + ((freqs_hz - centre_hz) / (width_hz / 2)) ** 2)
    return np.fft.irfft(np.fft.rfft(signal) * response, signal.size)


def phase(freq_hz: Signal) -> Signal:
    """Running phase in cycles `[T]` of an oscillator whose frequency is given sample by sample."""
    return np.cumsum(freq_hz) / SAMPLE_RATE


def sine(freq_hz: Signal) -> Signal:
    """A sine `[T]` that follows the frequency curve."""
    return np.sin(2 * np.pi * phase(freq_hz))


def pulses(freq_hz: Signal, sharpness: float) -> Signal:
    """A buzz `[T]`: once a cycle a jump that decays, the more sharply the richer in harmonics."""
    return np.exp(-sharpness * (phase(freq_hz) % 1.0)) - 1.0 / max(sharpness, 1.0)


def partials(freq_hz: float, num_samples: int, series: Sequence[tuple[float, float, float]]) -> Signal:
    """A struck sound `[T]`: sines at (multiple of the frequency, gain, decay in s)."""
    time_s = np.arange(num_samples) / SAMPLE_RATE
    total = np.zeros(num_samples)
    for multiple, gain, decay_s in series:
        total += gain * np.sin(2 * np.pi * freq_hz * multiple * time_s) * np.exp(-time_s / decay_s)
    return total


def envelope(num_samples: int, *points: tuple[float, float]) -> Signal:
    """Straight lines `[T]` through (fraction of the duration, level)."""
    return np.interp(np.linspace(0, 1, num_samples), [x for x, _ in points], [y for _, y in points])


def decay(num_samples: int, decay_s: float, attack_s: float = 0.001) -> Signal:
    """A short linear attack, then an exponential decay `[T]`."""
    time_s = np.arange(num_samples) / SAMPLE_RATE
    return np.minimum(1.0, time_s / attack_s) * np.exp(-time_s / decay_s)


def wander(rng: np.random.Generator, num_samples: int, rate_hz: float, low: float, high: float) -> Signal:
    """A smooth random curve `[T]` between two values that turns about `rate_hz` times a second."""
    num_points = max(2, int(num_samples / SAMPLE_RATE * rate_hz) + 2)
    knots = rng.uniform(low, high, num_points)
    position = np.linspace(0, num_points - 1, num_samples)
    left = np.minimum(position.astype(int), num_points - 2)
    blend = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    return knots[left] * (1 - blend) + knots[left + 1] * blend


def add_at(canvas: Signal, sound: Signal, start_s: float) -> None:
    """Adds the sound to the canvas in place, cut at the canvas's end."""
    start = int(start_s * SAMPLE_RATE)
    length = min(sound.size, canvas.size - start)
    if length > 0:
        canvas[start : start + length] += sound[:length]


def samples(duration_s: float) -> int:
    """Number of samples in so many seconds, at least 2."""
    return max(2, int(duration_s * SAMPLE_RATE))
