"""Mixtures: sounds at known times in a window, from which a model learns when each text's sound is heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform
from training.pretraining.loss import Meaning
from training.sounds.waveforms import noise

_MOST_EVENTS = 4
_EVENT_S = (0.3, 7.0)
_SOUNDING_SHARE = 0.5
_APART = 0.7  # the share of mixtures in which one event ends before the next one starts
_EVENT_DB = (3.0, 30.0)  # above the background
_PEAK_DB = (-25.0, 0.0)
_TILT_DB = (0.0, 6.0)
_FADE_SAMPLES = SAMPLE_RATE // 100
_STEP_SAMPLES = SAMPLE_RATE // 20
_ACTIVE_DB = -30.0  # below the loud parts of a sound, it is a pause
_PAUSE_STEPS = 30  # of 50 ms: a longer pause ends an event


class Sound(NamedTuple):
    """A sound `[T]` at 48 kHz and its meaning."""

    waveform: Waveform
    meaning: Meaning


@dataclass(frozen=True)
class TimedEvent:
    """A part of a window in which something is heard."""

    start_s: float
    end_s: float
    meaning: Meaning


@dataclass(frozen=True, eq=False)
class Mixture:
    """A window `[480000]` and what is heard in it when.

    Of what `unknown` means, it isn't known whether or when it is heard.
    """

    waveform: Waveform
    events: tuple[TimedEvent, ...]
    unknown: Meaning = field(default_factory=dict)


def mixed(sounds: Sequence[Sound], background: Sound | None, rng: np.random.Generator) -> Mixture:
    """Up to four of the sounds, or none, each at a random time and level over noise, or over the background.

    An event is cut out of its sound at random, and by the window's borders; it begins and ends where it can be heard,
    and a pause of 1.5 s or more makes two events of it.
    """
    window, unknown = _background(background, rng)
    pieces = [_piece(sound, rng) for sound in sounds[: int(rng.integers(_MOST_EVENTS + 1))]]
    pieces = [piece for piece in pieces if piece.waveform.any()]
    lengths = [piece.waveform.size for piece in pieces]
    events: list[TimedEvent] = []
    for piece, start in zip(pieces, _starts(lengths, rng), strict=True):
        gain = _rms(window) * 10 ** (rng.uniform(*_EVENT_DB) / 20) / _loudness(piece.waveform)
        first, last = max(0, start), min(WINDOW_SAMPLES, start + piece.waveform.size)
        part = piece.waveform[first - start : last - start] * np.float32(gain)
        for on, off in active_parts(part):
            events.append(TimedEvent((first + on) / SAMPLE_RATE, (first + off) / SAMPLE_RATE, piece.meaning))
        window[first:last] += _faded(part)
    peak = 10 ** (rng.uniform(*_PEAK_DB) / 20) / max(float(np.abs(window).max()), 1e-9)
    return Mixture(window * np.float32(peak), tuple(events), unknown)


def mixtures_of(sounds: Sequence[Sound], count: int, rng: np.random.Generator) -> list[Mixture]:
    """So many mixtures of a batch's sounds, half of them with one of these as the background."""
    made = []
    for _ in range(count):
        drawn = [sounds[index] for index in rng.permutation(len(sounds))]
        background = drawn.pop() if rng.random() < _SOUNDING_SHARE else None
        made.append(mixed(drawn, background, rng))
    return made


def coverage(events: Sequence[TimedEvent], num_frames: int, frame_s: float) -> npt.NDArray[np.float32]:
    """The share of each of a window's frames that each event covers: `[len(events), num_frames]` in [0, 1]."""
    edges_s = np.arange(num_frames + 1) * frame_s
    times_s = np.array([(event.start_s, event.end_s) for event in events]).reshape(-1, 2, 1)
    covered_s = np.minimum(times_s[:, 1], edges_s[1:]) - np.maximum(times_s[:, 0], edges_s[:-1])
    return (np.clip(covered_s, 0, None) / frame_s).astype(np.float32)


def active_parts(waveform: Waveform) -> list[tuple[int, int]]:
    """Where something is heard in a sound `[T]`: first and last sample of each part, to 50 ms; short pauses count."""
    num_steps = -(-waveform.size // _STEP_SAMPLES)
    padded = np.zeros(num_steps * _STEP_SAMPLES, np.float32)
    padded[: waveform.size] = waveform
    powers = np.square(padded).reshape(num_steps, _STEP_SAMPLES).mean(axis=1)
    if not powers.any():
        return []
    steps = np.flatnonzero(powers > np.quantile(powers[powers > 0], 0.9) * 10 ** (_ACTIVE_DB / 10))
    breaks = np.flatnonzero(np.diff(steps) > _PAUSE_STEPS)
    firsts, lasts = steps[[0, *(breaks + 1)]], steps[[*breaks, -1]]
    ends = np.minimum((lasts + 1) * _STEP_SAMPLES, waveform.size)
    return list(zip((firsts * _STEP_SAMPLES).tolist(), ends.tolist(), strict=True))


def _background(background: Sound | None, rng: np.random.Generator) -> tuple[Waveform, Mapping[str, float]]:
    """A window of the background at an RMS of 1, and what may be heard in it at any time."""
    if background is None or not background.waveform.any():
        return noise(rng, WINDOW_SAMPLES, rng.uniform(*_TILT_DB)).astype(np.float32), {}
    tiled = np.resize(np.roll(background.waveform, rng.integers(background.waveform.size)), WINDOW_SAMPLES)
    return tiled / np.float32(_rms(tiled)), background.meaning


def _piece(sound: Sound, rng: np.random.Generator) -> Sound:
    """A random excerpt of the sound's audible part."""
    parts = active_parts(sound.waveform)
    if not parts:
        return Sound(sound.waveform[:0], sound.meaning)
    audible = sound.waveform[parts[0][0] : parts[-1][1]]
    length = int(np.exp(rng.uniform(*np.log(_EVENT_S))) * SAMPLE_RATE)
    start = int(rng.integers(max(1, audible.size - length + 1)))
    return Sound(audible[start : start + length], sound.meaning)


def _starts(lengths: Sequence[int], rng: np.random.Generator) -> list[int]:
    """The first sample of each event; one that starts before the window, or ends after it, is cut."""
    if rng.random() < _APART and sum(lengths) < WINDOW_SAMPLES:
        gaps = rng.dirichlet(np.ones(len(lengths) + 1)) * (WINDOW_SAMPLES - sum(lengths))
        return [int(sum(gaps[: index + 1]) + sum(lengths[:index])) for index in range(len(lengths))]
    return [int(rng.integers(-length // 2, WINDOW_SAMPLES - length // 2)) for length in lengths]


def _faded(waveform: Waveform) -> Waveform:
    """The waveform with 10 ms of fade at both ends, so that no click tells where it was cut."""
    size = min(_FADE_SAMPLES, waveform.size // 2)
    if not size:
        return waveform
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    return np.concatenate([waveform[:size] * ramp, waveform[size:-size], waveform[-size:] * ramp[::-1]])


def _rms(waveform: Waveform) -> float:
    return max(float(np.sqrt(np.mean(np.square(waveform)))), 1e-9)


def _loudness(waveform: Waveform) -> float:
    """The RMS of the loud parts of a sound."""
    num_steps = max(1, waveform.size // _STEP_SAMPLES)
    powers = np.square(np.resize(waveform, num_steps * _STEP_SAMPLES)).reshape(num_steps, -1).mean(axis=1)
    return max(float(np.sqrt(np.quantile(powers, 0.9))), 1e-9)
