"""Mixtures of sounds: what is said to be heard is heard, then and only then."""

from __future__ import annotations

import itertools

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE
from training.sounds.mixtures import Mixture, Scene, background, mixture, trimmed

TONE = np.sin(2 * np.pi * 500 * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
BEEP = np.sin(2 * np.pi * 4000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
SCENE = Scene(duration_s=20.0, num_sounds=(3, 3), above_background_db=(25.0, 30.0))


def made(seed: int, scene: Scene = SCENE) -> Mixture:
    return mixture({"tone": [TONE], "beep": [BEEP]}, [], np.random.default_rng(seed), scene)


def test_the_same_seed_gives_the_same_mixture() -> None:
    one, same, other = made(1), made(1), made(2)
    assert one.sounds == same.sounds
    assert np.array_equal(one.waveform, same.waveform)
    assert not np.array_equal(one.waveform, other.waveform)


def test_it_is_loud_when_a_sound_is_heard_and_quiet_otherwise() -> None:
    mixed = made(3)
    assert mixed.waveform.shape == (20 * SAMPLE_RATE,)
    heard = np.zeros(mixed.waveform.size, bool)
    for sound in mixed.sounds:
        heard[round(sound.start_s * SAMPLE_RATE) : round(sound.end_s * SAMPLE_RATE)] = True
    power = np.square(mixed.waveform, dtype=np.float64)
    assert power[heard].mean() > 100 * power[~heard].mean()
    assert np.abs(mixed.waveform).max() <= 1.0


def test_sounds_of_one_kind_never_touch() -> None:
    crowded = Scene(duration_s=30.0, num_sounds=(12, 12), overlapping=1.0)
    for seed in range(5):
        for kind in ("tone", "beep"):
            own = [sound for sound in made(seed, crowded).sounds if sound.kind == kind]
            assert all(later.start_s - sooner.end_s >= 0.49 for sooner, later in itertools.pairwise(own))


def test_silence_around_a_sound_is_no_part_of_it() -> None:
    silence = np.zeros(SAMPLE_RATE, np.float32)
    assert trimmed(np.concatenate([silence, BEEP, silence])).size == BEEP.size


def test_a_background_of_clips_has_no_gaps() -> None:
    made_of_clips = background([BEEP, TONE], 20 * SAMPLE_RATE, np.random.default_rng(0))
    rms = np.sqrt(np.square(made_of_clips.reshape(-1, SAMPLE_RATE // 2)).mean(axis=1))
    assert rms.min() > 0.3
