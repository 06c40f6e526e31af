"""Synthetic animals. Every generator takes (rng, number of samples) and returns the sound `[T]` at any level."""

from __future__ import annotations

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE
from training.sounds.waveforms import (
    Signal,
    add_at,
    band,
    envelope,
    noise,
    pulses,
    resonate,
    samples,
    sine,
    wander,
)


def dog_bark(rng: np.random.Generator, num_samples: int) -> Signal:
    """Barks, alone or in bursts, of one dog whose size is drawn."""
    canvas = np.zeros(num_samples)
    pitch_hz = rng.uniform(180, 750)
    size = rng.uniform(0.7, 1.6)
    start_s = rng.uniform(0, 0.3)
    while start_s < num_samples / SAMPLE_RATE:
        for _ in range(rng.integers(1, 4)):
            add_at(canvas, _bark(rng, pitch_hz * rng.uniform(0.92, 1.08), size) * rng.uniform(0.7, 1), start_s)
            start_s += rng.uniform(0.22, 0.5)
        start_s += rng.uniform(0.1, 1.6)
    return canvas


def _bark(rng: np.random.Generator, pitch_hz: float, size: float) -> Signal:
    length = samples(rng.uniform(0.09, 0.24))
    pitch = pitch_hz * envelope(length, (0, rng.uniform(0.7, 1)), (0.25, rng.uniform(1.2, 1.7)), (1, 0.75))
    voice = pulses(pitch * wander(rng, length, 60, 0.9, 1.1), 5.0) + 0.35 * noise(rng, length)
    voiced = resonate(
        voice, [(600 / size, 300, 1.0), (1300 / size, 500, 0.9), (2700 / size, 900, 0.5), (5000, 4000, 0.05)]
    )
    return voiced * envelope(length, (0, 0), (0.08, 1), (0.5, 0.8), (1, 0))


def rooster(rng: np.random.Generator, num_samples: int) -> Signal:
    """Crows of three short notes and a long falling one."""
    canvas = np.zeros(num_samples)
    pitch_hz = rng.uniform(480, 850)
    start_s = rng.uniform(0, 0.4)
    while start_s < num_samples / SAMPLE_RATE:
        for length_s, low, high in ((0.18, 0.8, 1.0), (0.15, 0.95, 1.1), (0.25, 1.0, 1.25), (0.9, 1.2, 0.7)):
            length = samples(length_s * rng.uniform(0.8, 1.25))
            pitch = pitch_hz * envelope(
                length, (0, low * 0.8), (0.2, max(low, high)), (0.7, (low + high) / 2), (1, high * 0.8)
            )
            voice = pulses(pitch * wander(rng, length, 40, 0.97, 1.03), 4.0) + 0.12 * noise(rng, length)
            note = resonate(voice, [(pitch_hz * 2, 700, 1), (2600, 900, 0.7), (4200, 1500, 0.3)])
            add_at(canvas, note * envelope(length, (0, 0), (0.1, 1), (0.75, 0.8), (1, 0)), start_s)
            start_s += length / SAMPLE_RATE + rng.uniform(0.01, 0.06)
        start_s += rng.uniform(0.5, 3)
    return canvas


def bird_chirp(rng: np.random.Generator, num_samples: int) -> Signal:
    """Phrases of fast sweeps between 2 and 8 kHz."""
    canvas = np.zeros(num_samples)
    centre_hz = rng.uniform(2500, 6000)
    start_s = rng.uniform(0, 0.3)
    while start_s < num_samples / SAMPLE_RATE:
        sweep = rng.uniform(0.6, 1.6, 3)
        length_s = rng.uniform(0.03, 0.18)
        for _ in range(rng.integers(2, 9)):
            length = samples(length_s)
            pitch = centre_hz * envelope(length, (0, sweep[0]), (0.5, sweep[1]), (1, sweep[2]))
            trill = 1 + 0.08 * np.sin(2 * np.pi * rng.uniform(20, 45) * np.arange(length) / SAMPLE_RATE)
            add_at(canvas, sine(np.clip(pitch * trill, 1200, 11_000)) * np.hanning(length), start_s)
            start_s += length_s + rng.uniform(0.02, 0.09)
        start_s += rng.uniform(0.2, 1.2)
    return canvas


def cricket(rng: np.random.Generator, num_samples: int) -> Signal:
    """A steady stridulation around 4–6 kHz: pulses in groups."""
    carrier_hz = rng.uniform(3800, 6200)
    canvas = np.zeros(num_samples)
    group_s, pulse_s, pulses_a_group = rng.uniform(0.25, 0.9), rng.uniform(0.012, 0.03), int(rng.integers(2, 6))
    for group in np.arange(rng.uniform(0, 0.3), num_samples / SAMPLE_RATE, group_s).tolist():
        for index in range(pulses_a_group):
            length = samples(pulse_s)
            chirp = sine(np.full(length, carrier_hz)) * np.hanning(length) * (0.5 + 0.5 * index / pulses_a_group)
            add_at(canvas, chirp, group + index * pulse_s * 1.6 + rng.uniform(0, 0.002))
    night = band(noise(rng, num_samples, 3), 200, 6000)
    return canvas + rng.uniform(0, 0.03) * night
