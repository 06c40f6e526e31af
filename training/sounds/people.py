"""Synthetic people. Every generator takes (rng, number of samples) and returns the sound `[T]` at any level."""

from __future__ import annotations

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE
from training.sounds.waveforms import (
    Signal,
    add_at,
    band,
    decay,
    envelope,
    noise,
    pulses,
    resonate,
    samples,
    sine,
    wander,
)

# First three formants in Hz of a grown-up's vowels.
_VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
    (660, 1720, 2410),
)


def speech(rng: np.random.Generator, num_samples: int) -> Signal:
    """Babble of one voice: vowels with a melody, hissing consonants, pauses between phrases."""
    canvas = np.zeros(num_samples)
    pitch_hz = rng.uniform(85, 240)
    tract = rng.uniform(0.9, 1.2)
    start_s = rng.uniform(0, 0.3)
    while start_s < num_samples / SAMPLE_RATE:
        melody = rng.uniform(0.9, 1.2)
        for _ in range(rng.integers(4, 14)):
            if rng.random() < 0.6:
                length = samples(rng.uniform(0.03, 0.1))
                low_hz = rng.uniform(1500, 5000)
                hiss = band(noise(rng, length), low_hz, low_hz * 2) * np.hanning(length)
                add_at(canvas, hiss * rng.uniform(0.05, 0.3), start_s)
                start_s += length / SAMPLE_RATE * rng.uniform(0.6, 1)
            vowel = _vowel(rng, pitch_hz * melody, tract, rng.uniform(0.07, 0.22))
            add_at(canvas, vowel * rng.uniform(0.5, 1), start_s)
            start_s += vowel.size / SAMPLE_RATE * rng.uniform(0.75, 1.0)
            melody *= rng.uniform(0.93, 1.04)
        start_s += rng.uniform(0.15, 0.8)
    return canvas


def _vowel(rng: np.random.Generator, pitch_hz: float, tract: float, length_s: float) -> Signal:
    length = samples(length_s)
    pitch = pitch_hz * wander(rng, length, 12, 0.94, 1.06)
    first, second, third = rng.choice(_VOWELS)
    formants = [(first * tract, 90, 1.0), (second * tract, 120, 0.6), (third * tract, 180, 0.3), (3600, 900, 0.05)]
    voiced = resonate(pulses(pitch, 6.0), formants)
    return voiced / (np.abs(voiced).max() + 1e-9) * envelope(length, (0, 0), (0.15, 1), (0.8, 0.8), (1, 0))


def baby_cry(rng: np.random.Generator, num_samples: int) -> Signal:
    """Wails around 300–600 Hz that rise, hold and fall, with gasps between."""
    canvas = np.zeros(num_samples)
    pitch_hz = rng.uniform(320, 560)
    start_s = rng.uniform(0, 0.4)
    while start_s < num_samples / SAMPLE_RATE:
        length = samples(rng.uniform(0.4, 1.4))
        pitch = pitch_hz * envelope(length, (0, 0.75), (0.2, 1.1), (0.6, rng.uniform(1, 1.2)), (1, 0.7))
        vibrato = 1 + rng.uniform(0.005, 0.03) * np.sin(2 * np.pi * rng.uniform(5, 9) * np.arange(length) / SAMPLE_RATE)
        voice = pulses(pitch * vibrato * wander(rng, length, 50, 0.98, 1.02), 6.0)
        voice += rng.uniform(0.03, 0.3) * noise(rng, length)
        wail = resonate(voice, [(1100, 400, 1.0), (2900, 700, 0.8), (4800, 1400, 0.35), (7500, 3000, 0.1)])
        add_at(canvas, wail * envelope(length, (0, 0), (0.12, 1), (0.8, 0.9), (1, 0)), start_s)
        start_s += length / SAMPLE_RATE
        gasp = samples(rng.uniform(0.1, 0.3))
        add_at(canvas, band(noise(rng, gasp), 1000, 5000) * np.hanning(gasp) * rng.uniform(0, 0.3), start_s)
        start_s += gasp / SAMPLE_RATE + rng.uniform(0, 0.4)
    return canvas


def person_sneeze(rng: np.random.Generator, num_samples: int) -> Signal:
    """An intake of breath, then a burst of noise with a voiced start; once or a few times."""
    canvas = np.zeros(num_samples)
    tract = rng.uniform(0.85, 1.25)
    start_s = rng.uniform(0.0, 0.5)
    while start_s < num_samples / SAMPLE_RATE:
        breath = samples(rng.uniform(0.2, 0.7))
        inhale = band(noise(rng, breath), 700 * tract, 4000) * envelope(breath, (0, 0), (0.8, 1), (1, 0))
        add_at(canvas, inhale * rng.uniform(0.02, 0.12), start_s)
        start_s += breath / SAMPLE_RATE + rng.uniform(0.0, 0.12)
        burst = samples(rng.uniform(0.15, 0.45))
        blast = band(noise(rng, burst), rng.uniform(300, 1500), rng.uniform(7000, 15_000), order=1)
        blast *= envelope(burst, (0, 0), (0.06, 1), (0.35, 0.5), (1, 0))
        add_at(canvas, blast, start_s)
        call = _vowel(rng, rng.uniform(150, 420), tract, rng.uniform(0.1, 0.35))
        add_at(canvas, call * rng.uniform(0.1, 1.5), start_s + rng.uniform(-0.02, 0.05) + 0.02)
        start_s += burst / SAMPLE_RATE + rng.uniform(0.8, 4)
    return canvas


def applause(rng: np.random.Generator, num_samples: int) -> Signal:
    """Claps of a few to many hands, each pair at its own pace."""
    canvas = np.zeros(num_samples)
    for _ in range(rng.integers(6, 40)):
        length = samples(0.03)
        low_hz = rng.uniform(500, 1400)
        clap = band(noise(rng, length), low_hz, low_hz * rng.uniform(2.5, 5)) * decay(length, rng.uniform(0.003, 0.009))
        pace_s, loudness = rng.uniform(0.16, 0.32), rng.uniform(0.2, 1)
        start_s = rng.uniform(0, pace_s)
        while start_s < num_samples / SAMPLE_RATE:
            add_at(canvas, clap * loudness * rng.uniform(0.7, 1), start_s)
            start_s += pace_s * rng.uniform(0.9, 1.1)
    return canvas


def footsteps(rng: np.random.Generator, num_samples: int) -> Signal:
    """Heel and toe at a walking pace on one kind of floor."""
    canvas = np.zeros(num_samples)
    pace_s, floor_hz, grit = rng.uniform(0.35, 0.75), rng.uniform(80, 260), rng.uniform(0, 0.5)
    start_s = rng.uniform(0, 0.4)
    while start_s < num_samples / SAMPLE_RATE:
        for offset_s, loudness in ((0.0, 1.0), (rng.uniform(0.06, 0.12), rng.uniform(0.2, 0.6))):
            length = samples(0.12)
            thud = band(noise(rng, length), floor_hz, floor_hz * 2.5) * decay(length, rng.uniform(0.015, 0.03))
            scrape = band(noise(rng, length), 1500, 6000) * decay(length, 0.03, 0.01) * grit * rng.uniform(0.3, 1)
            add_at(canvas, loudness * (thud + 0.3 * scrape), start_s + offset_s)
        start_s += pace_s * rng.uniform(0.94, 1.06)
    return canvas


def whistle(rng: np.random.Generator, num_samples: int) -> Signal:
    """A person whistling a tune: gliding near-sines between 800 and 2500 Hz with breath."""
    canvas = np.zeros(num_samples)
    root_hz = rng.uniform(850, 1500)
    pitch_hz, start_s = root_hz, rng.uniform(0, 0.3)
    while start_s < num_samples / SAMPLE_RATE:
        length = samples(rng.uniform(0.15, 0.7))
        target_hz = root_hz * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 12]) / 12)
        glide = envelope(length, (0, pitch_hz), (0.25, target_hz), (1, target_hz)) * wander(rng, length, 8, 0.99, 1.01)
        breath = 0.04 * band(noise(rng, length), target_hz * 0.8, target_hz * 1.5)
        add_at(canvas, (sine(glide) + breath) * envelope(length, (0, 0), (0.15, 1), (0.8, 0.9), (1, 0)), start_s)
        start_s += length / SAMPLE_RATE + rng.choice([0.0, 0.02, 0.3])
        pitch_hz = target_hz
    return canvas
