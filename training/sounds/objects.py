"""Synthetic machines and things. Every generator takes (rng, number of samples) and returns the sound `[T]`."""

from __future__ import annotations

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE
from training.sounds.waveforms import (
    Signal,
    add_at,
    band,
    decay,
    noise,
    partials,
    pulses,
    resonate,
    samples,
    wander,
)


def clock_tick(rng: np.random.Generator, num_samples: int) -> Signal:
    """Regular dry clicks, ticks and tocks by turns, one to four a second."""
    canvas = 0.002 * noise(rng, num_samples, 3)
    pace_s = rng.choice([0.25, 0.5, 0.5, 1.0, 1.0]) * rng.uniform(0.95, 1.05)
    clicks = [_click(rng), _click(rng)]
    for index, start_s in enumerate(np.arange(rng.uniform(0, pace_s), num_samples / SAMPLE_RATE, pace_s)):
        add_at(canvas, clicks[index % 2] * rng.uniform(0.9, 1), start_s + rng.uniform(0, 0.004))
    return canvas


def _click(rng: np.random.Generator) -> Signal:
    length = samples(0.05)
    ring = [(rng.uniform(0.5, 2.0), rng.uniform(0.2, 1), rng.uniform(0.001, 0.01)) for _ in range(4)]
    snap = noise(rng, length) * decay(length, rng.uniform(0.0005, 0.002), 0.0001)
    return partials(rng.uniform(1200, 4500), length, ring) * 0.4 + snap * rng.uniform(0.2, 0.8)


def helicopter(rng: np.random.Generator, num_samples: int) -> Signal:
    """Rotor blades chopping 9 to 22 times a second over engine noise."""
    rotor_hz = rng.uniform(9, 22) * wander(rng, num_samples, 0.3, 0.98, 1.02)
    chop = pulses(rotor_hz, rng.uniform(3, 9)) + 0.3
    thump = band(noise(rng, num_samples, 6), 30, rng.uniform(200, 500), order=2)
    wash = band(noise(rng, num_samples, 3), 200, rng.uniform(2000, 6000), order=1)
    turbine = resonate(pulses(np.full(num_samples, rng.uniform(200, 800)), 3), [(rng.uniform(600, 3000), 400, 1)])
    distance = wander(rng, num_samples, 0.3, 0.5, 1.0)
    return distance * ((thump + rng.uniform(0.2, 0.8) * wash) * np.clip(chop, 0, None) + rng.uniform(0, 0.4) * turbine)


def chainsaw(rng: np.random.Generator, num_samples: int) -> Signal:
    """A rasping two-stroke motor that idles, revs and bites."""
    rev = wander(rng, num_samples, rng.uniform(0.4, 1.5), 0.0, 1.0)
    rev = np.clip((rev - 0.35) * 3, 0, 1)
    pitch_hz = rng.uniform(55, 90) + rev * rng.uniform(60, 130)
    motor = pulses(pitch_hz * wander(rng, num_samples, 30, 0.95, 1.05), 10.0)
    rasp = band(noise(rng, num_samples, 1), 800, rng.uniform(6000, 12_000), order=1) * (0.2 + motor.clip(0, 1))
    voiced = resonate(
        motor, [(rng.uniform(300, 700), 500, 1), (rng.uniform(1500, 2800), 1500, 0.7), (5000, 4000, 0.35)]
    )
    return (voiced / voiced.std() + rng.uniform(0.2, 0.9) * rasp) * (0.35 + 0.65 * rev)


def engine(rng: np.random.Generator, num_samples: int) -> Signal:
    """A car or motor at low revs: firing pulses through an exhaust, no rasp."""
    pitch_hz = rng.uniform(22, 60) * wander(rng, num_samples, 0.5, 0.85, 1.35)
    motor = pulses(pitch_hz * wander(rng, num_samples, 15, 0.98, 1.02), rng.uniform(2, 5))
    body = resonate(motor, [(rng.uniform(70, 140), 80, 1), (rng.uniform(200, 400), 200, 0.5), (900, 700, 0.08)])
    return body / body.std() + rng.uniform(0.05, 0.2) * band(noise(rng, num_samples, 4), 60, 1200, order=1)


def bell(rng: np.random.Generator, num_samples: int) -> Signal:
    """Strokes of one bell with inharmonic partials that ring on."""
    canvas = np.zeros(num_samples)
    pitch_hz, ring_s = rng.uniform(250, 1100), rng.uniform(0.8, 2.5)
    ratios = ((0.5, 0.4), (1.0, 1.0), (1.19, 0.6), (1.5, 0.4), (2.0, 0.7), (2.74, 0.4), (3.76, 0.3), (5.4, 0.2))
    series = [
        (ratio * rng.uniform(0.99, 1.01), gain * rng.uniform(0.5, 1), ring_s / ratio**0.7) for ratio, gain in ratios
    ]
    stroke = partials(pitch_hz, samples(4), series)
    start_s, pace_s = rng.uniform(0, 0.5), rng.uniform(0.6, 2.2)
    while start_s < num_samples / SAMPLE_RATE:
        add_at(canvas, stroke * rng.uniform(0.7, 1), start_s)
        start_s += pace_s * rng.uniform(0.95, 1.05)
    return canvas


def knocking(rng: np.random.Generator, num_samples: int) -> Signal:
    """Knocks on a door, two to five in a row, then a pause."""
    canvas = np.zeros(num_samples)
    panel_hz, pace_s = rng.uniform(140, 420), rng.uniform(0.13, 0.28)
    start_s = rng.uniform(0, 0.4)
    while start_s < num_samples / SAMPLE_RATE:
        for _ in range(rng.integers(2, 6)):
            length = samples(0.15)
            series = [(1.0, 1.0, 0.025), (1.6, 0.6, 0.018), (2.5, 0.4, 0.012), (4.1, 0.2, 0.006)]
            knock = partials(panel_hz * rng.uniform(0.97, 1.03), length, series)
            knock += 0.3 * noise(rng, length, 3) * decay(length, 0.004, 0.0005)
            add_at(canvas, knock * rng.uniform(0.7, 1), start_s)
            start_s += pace_s * rng.uniform(0.92, 1.08)
        start_s += rng.uniform(0.5, 1.5)
    return canvas
