from __future__ import annotations

import numpy as np
import pytest

from training.sounds import speech

pytestmark = pytest.mark.skipif(not speech.is_available(), reason="espeak-ng is not installed")


def test_spoken_words_follow_from_the_seed() -> None:
    waveform = speech.speak(3)
    assert waveform.dtype == np.float32
    assert 48_000 < waveform.size <= 480_000
    assert float(np.abs(waveform).max()) > 0.05
    assert np.array_equal(waveform, speech.speak(3))
    assert not np.array_equal(waveform[:48_000], speech.speak(4)[:48_000])
