"""Synthetic signals and test sounds. Every generator takes (rng, number of samples) and returns the sound `[T]`."""

from __future__ import annotations

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE
from training.sounds.waveforms import (
    Signal,
    add_at,
    band,
    envelope,
    noise,
    partials,
    pulses,
    samples,
    sine,
)


def siren(rng: np.random.Generator, num_samples: int) -> Signal:
    """An emergency siren: wail, yelp or two-tone, between 500 and 1700 Hz."""
    time_s = np.arange(num_samples) / SAMPLE_RATE + rng.uniform(0, 4)
    low_hz = rng.uniform(450, 750)
    high_hz = low_hz * rng.uniform(1.6, 2.3)
    style = rng.choice(["wail", "yelp", "two-tone"])
    if style == "two-tone":
        position = (time_s / rng.uniform(0.8, 1.3) % 1.0 < 0.5).astype(float)
        high_hz = low_hz * 1.335
    else:
        position = 0.5 - 0.5 * np.cos(
            2 * np.pi * time_s / (rng.uniform(3, 6) if style == "wail" else rng.uniform(0.3, 0.6))
        )
    pitch_hz = low_hz + (high_hz - low_hz) * position
    return band(pulses(pitch_hz, rng.uniform(1.5, 4)), 300, 5000, order=1)


def alarm_beep(rng: np.random.Generator, num_samples: int) -> Signal:
    """Short beeps of one pitch in a strict rhythm, singly or in groups."""
    canvas = np.zeros(num_samples)
    pitch_hz, beep_s = rng.uniform(900, 3500), rng.uniform(0.06, 0.25)
    beeps, pause_s = int(rng.integers(1, 5)), rng.uniform(0.2, 0.8)
    length = samples(beep_s)
    tone = sine(np.full(length, pitch_hz))
    beep = np.sign(tone) * 0.5 + tone * 0.5 if rng.random() < 0.5 else tone
    beep = beep * envelope(length, (0, 0), (0.03, 1), (0.97, 1), (1, 0))
    start_s = rng.uniform(0, 0.4)
    while start_s < num_samples / SAMPLE_RATE:
        for _ in range(beeps):
            add_at(canvas, beep, start_s)
            start_s += beep_s * 1.7
        start_s += pause_s
    return canvas


def phone_ring(rng: np.random.Generator, num_samples: int) -> Signal:
    """An old telephone: two small bells struck 16 to 25 times a second, ringing and pausing by turns."""
    canvas = np.zeros(num_samples)
    strikes_hz, pitch_hz = rng.uniform(16, 25), rng.uniform(900, 1700)
    dings = [
        partials(pitch_hz * step, samples(0.25), [(1, 1, 0.08), (2.4, 0.7, 0.06), (4.1, 0.4, 0.04), (6.2, 0.2, 0.03)])
        for step in (1.0, rng.uniform(1.05, 1.3))
    ]
    ring_s, pause_s = rng.uniform(0.8, 2.0), rng.uniform(0.4, 1.5)
    start_s = rng.uniform(0, 0.4)
    while start_s < num_samples / SAMPLE_RATE:
        for index in range(int(ring_s * strikes_hz)):
            add_at(canvas, dings[index % 2] * rng.uniform(0.85, 1), start_s + index / strikes_hz)
        start_s += ring_s + pause_s
    return canvas


def pure_tone(rng: np.random.Generator, num_samples: int) -> Signal:
    """One steady sine between 150 Hz and 6 kHz."""
    return sine(np.full(num_samples, 150 * 40 ** rng.uniform()))


def music(rng: np.random.Generator, num_samples: int) -> Signal:
    """Chords of a plucked or blown instrument in a common progression, with a bass and a melody."""
    canvas = np.zeros(num_samples)
    root_hz, beat_s, soft = rng.uniform(110, 240), rng.uniform(0.3, 0.6), rng.random() < 0.4
    degrees = rng.permutation([0, 5, 7, 9])
    scale = np.array([0, 2, 4, 7, 9, 12])
    for bar, start_s in enumerate(np.arange(0, num_samples / SAMPLE_RATE, 4 * beat_s).tolist()):
        degree = degrees[bar % 4]
        third = 3 if degree == 9 else 4
        for step in (-12, 0, third, 7):
            add_at(canvas, _note(root_hz * 2 ** ((degree + step) / 12), 4 * beat_s, soft), start_s)
        for beat in range(4):
            if rng.random() < 0.8:
                step = 12 + rng.choice(scale)
                add_at(canvas, 0.8 * _note(root_hz * 2 ** (step / 12), beat_s * 1.5, soft), start_s + beat * beat_s)
    return canvas


def _note(pitch_hz: float, length_s: float, soft: bool) -> Signal:
    length = samples(length_s)
    decay_s = 3.0 if soft else 0.6
    note = partials(pitch_hz, length, [(k, k ** (-1.8 if soft else -1.2), decay_s / k**0.5) for k in range(1, 8)])
    return note * envelope(length, (0, 0), (0.15 if soft else 0.005, 1), (0.85, 1), (1, 0))


def white_noise(rng: np.random.Generator, num_samples: int) -> Signal:
    """A steady featureless hiss, white to pink."""
    return noise(rng, num_samples, rng.uniform(0, 3))


def silence(rng: np.random.Generator, num_samples: int) -> Signal:
    """Nothing, or a noise floor below −66 dBFS."""
    if rng.random() < 0.3:
        return np.zeros(num_samples)
    return 10 ** (rng.uniform(-100, -66) / 20) * noise(rng, num_samples, rng.uniform(0, 6))
