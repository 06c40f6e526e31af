"""Synthetic weather, water and fire. Every generator takes (rng, number of samples) and returns the sound `[T]`."""

from __future__ import annotations

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE
from training.sounds.waveforms import Signal, add_at, band, decay, envelope, noise, samples, wander


def rain(rng: np.random.Generator, num_samples: int) -> Signal:
    """A steady hiss with thousands of drops, from drizzle to downpour."""
    hiss = band(noise(rng, num_samples, rng.uniform(0, 4)), rng.uniform(200, 900), rng.uniform(7000, 16_000), order=1)
    hiss *= wander(rng, num_samples, 0.7, 0.8, 1.0)
    drops_a_second = rng.uniform(30, 500)
    impulses = np.zeros(num_samples)
    count = rng.poisson(drops_a_second * num_samples / SAMPLE_RATE)
    impulses[rng.integers(0, num_samples, count)] = rng.exponential(1.0, count)
    drops = np.convolve(impulses, decay(samples(0.004), 0.0008, 0.0001) * noise(rng, samples(0.004)), "same").astype(
        np.float64
    )
    drops = band(drops, rng.uniform(600, 2000), 14_000, order=1)
    return rng.uniform(0.05, 0.35) * hiss + drops / (np.std(drops) + 1e-9) * rng.uniform(0.1, 0.35)


def sea_waves(rng: np.random.Generator, num_samples: int) -> Signal:
    """Broad noise that swells and breaks every few seconds, brighter at the crest."""
    period_s = rng.uniform(2.5, 8)
    low = band(noise(rng, num_samples, 5), 60, rng.uniform(500, 1500), order=1)
    high = band(noise(rng, num_samples, 2), 800, rng.uniform(5000, 12_000), order=1)
    cycle = (np.arange(num_samples) / SAMPLE_RATE / period_s + rng.uniform()) % 1.0
    cycle = np.clip(cycle * wander(rng, num_samples, 0.5, 0.85, 1.1), 0, 1)
    crest = rng.uniform(0.3, 0.6)
    swell = np.interp(cycle, [0, crest, crest + 0.15, 1], [0.12, 0.55, 1.0, 0.12])
    return low * (0.3 + 0.7 * swell) + high * swell**2 * rng.uniform(0.4, 1.0)


def fire_crackling(rng: np.random.Generator, num_samples: int) -> Signal:
    """Irregular sharp cracks of all sizes over a low roar."""
    roar = band(noise(rng, num_samples, 5), 40, rng.uniform(250, 900), order=1) * wander(rng, num_samples, 3, 0.5, 1.0)
    hiss = band(noise(rng, num_samples, 1), 2000, 9000, order=1)
    canvas = rng.uniform(0.01, 0.12) * roar + rng.uniform(0.0, 0.02) * hiss
    rate = wander(rng, num_samples, 1.0, 0.2, 1.0) * rng.uniform(8, 45) / SAMPLE_RATE
    for start in np.flatnonzero(rng.random(num_samples) < rate):
        length = samples(rng.uniform(0.002, 0.02))
        crack = noise(rng, length, rng.uniform(0, 3)) * decay(length, length / SAMPLE_RATE / 5, 0.0002)
        add_at(canvas, crack * min(1.0, rng.pareto(1.8) * 0.12 + 0.02), start / SAMPLE_RATE)
    return canvas


def wind(rng: np.random.Generator, num_samples: int) -> Signal:
    """Gusts: low noise with a whistling band that moves with the strength."""
    gust = wander(rng, num_samples, rng.uniform(0.3, 1.2), 0.15, 1.0)
    low = band(noise(rng, num_samples, 6), 30, rng.uniform(200, 500), order=2)
    total = low * gust
    for centre_hz in rng.uniform(250, 1100, 3):
        howl = band(noise(rng, num_samples), centre_hz * 0.93, centre_hz * 1.07, order=4)
        total += rng.uniform(0.5, 2.0) * howl * np.clip(gust + wander(rng, num_samples, 1, -0.4, 0.2), 0, 1) ** 2
    return total


def thunder(rng: np.random.Generator, num_samples: int) -> Signal:
    """Claps with a crack at the start and a rumble that rolls away."""
    canvas = 0.01 * band(noise(rng, num_samples, 2), 300, 8000, order=1)
    start_s = rng.uniform(0, 0.5)
    while start_s < num_samples / SAMPLE_RATE:
        length = samples(rng.uniform(2.5, 6))
        rumble = band(noise(rng, length, 6), 25, rng.uniform(90, 250), order=2) * wander(rng, length, 5, 0.2, 1)
        rumble *= envelope(length, (0, 0), (0.05, 1), (0.3, 0.6), (1, 0))
        crack = noise(rng, length, 3) * decay(length, rng.uniform(0.1, 0.4), 0.01) * wander(rng, length, 25, 0, 1)
        add_at(canvas, rumble + rng.uniform(0.1, 0.7) * crack, start_s)
        start_s += length / SAMPLE_RATE * rng.uniform(0.7, 1.3)
    return canvas
