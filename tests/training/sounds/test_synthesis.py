from __future__ import annotations

import numpy as np
import pytest

from training.sounds.synthesis import KINDS, synthesise


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_is_finite_float32_of_the_asked_length_and_below_full_scale(kind: str) -> None:
    waveform = synthesise(kind, seed=5, duration_s=1.5)
    assert waveform.dtype == np.float32
    assert waveform.shape == (72_000,)
    assert np.isfinite(waveform).all()
    peak = float(np.abs(waveform).max())
    assert peak < 0.9
    assert (peak < 0.01) if kind == "silence" else (peak > 0.12)


@pytest.mark.parametrize("kind", ["dog bark", "rain", "speech", "music"])
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(kind: str) -> None:
    first = synthesise(kind, seed=7, duration_s=1.0)
    assert np.array_equal(first, synthesise(kind, seed=7, duration_s=1.0))
    assert not np.array_equal(first, synthesise(kind, seed=8, duration_s=1.0))


def test_two_kinds_of_one_seed_share_nothing() -> None:
    rain, wind = (synthesise(kind, seed=3, duration_s=1.0) for kind in ("rain", "wind"))
    assert abs(float(np.corrcoef(rain, wind)[0, 1])) < 0.1


def test_a_pure_tone_has_one_frequency_and_white_noise_has_all() -> None:
    def share_of_the_strongest(kind: str) -> float:
        power = np.abs(np.fft.rfft(synthesise(kind, seed=2, duration_s=2.0) * np.hanning(96_000))) ** 2
        return float(np.sort(power)[-200:].sum() / power.sum())

    assert share_of_the_strongest("pure tone") > 0.9
    assert share_of_the_strongest("white noise") < 0.2


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError, match="unicorn"):
        synthesise("unicorn", seed=0, duration_s=1.0)
