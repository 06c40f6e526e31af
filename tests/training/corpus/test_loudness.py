"""Loudness by BS.1770: its own reference tone, the gates, and another implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.functional import loudness as peer_loudness

from training.corpus.loudness import loudness

RATE_HZ = 48_000


def tone(hz: float, level_dbfs: float, duration_s: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    time_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    return 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * time_s)


def test_the_standards_reference_tone_reads_what_it_says() -> None:
    assert loudness(tone(997, 0.0, 4.0)) == pytest.approx(-3.01, abs=0.01)
    assert loudness(tone(997, -20.0, 4.0)) == pytest.approx(-23.01, abs=0.01)


def test_quiet_parts_do_not_count_where_there_are_louder_ones() -> None:
    loud, quiet = tone(997, -23.0, 6.0), tone(997, -40.0, 6.0)
    alone = loudness(loud)
    assert loudness(np.concatenate([quiet, loud])) == pytest.approx(alone, abs=0.2)
    assert loudness(np.concatenate([np.zeros(12 * RATE_HZ), loud])) == pytest.approx(alone, abs=0.2)


def test_silence_is_below_everything() -> None:
    assert loudness(np.zeros(RATE_HZ)) == -np.inf
    assert loudness(tone(997, -80.0, 1.0)) == -np.inf


def test_what_is_shorter_than_a_block_is_as_loud_as_its_repetition() -> None:
    assert loudness(tone(1000, -20.0, 0.1)) == pytest.approx(loudness(tone(1000, -20.0, 2.0)), abs=0.3)
    assert np.isfinite(loudness(np.array([0.5], np.float32)))


@pytest.mark.parametrize("hz", [100.0, 1000.0, 8000.0])
def test_it_agrees_with_torchaudio(hz: float) -> None:
    noise = 0.002 * np.random.default_rng(0).standard_normal(3 * RATE_HZ)
    waveform = tone(hz, -30.0, 3.0) + noise
    assert loudness(waveform) == pytest.approx(
        float(peer_loudness(torch.from_numpy(waveform)[None], RATE_HZ)), abs=0.15
    )
