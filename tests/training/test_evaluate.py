from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from training.dataset import Recording
from training.evaluate import embed, zero_shot


class LoudnessEncoder:
    """Places a sound by its loudness and a text by the words «loud» and «quiet» in it."""

    def embed_windows(self, waveforms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        loud = np.abs(waveforms).max(axis=1) > 0.5
        return np.where(loud[:, None], [[1.0, 0.0]], [[0.0, 1.0]]).astype(np.float32)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[1.0, 0.0] if "loud" in text else [0.0, 1.0] for text in texts], np.float32)


def recording(kind: str, level: float, seconds: int = 1) -> Recording:
    return Recording(kind, np.full(48_000 * seconds, level, np.float32))


def test_the_report_counts_what_was_called_what() -> None:
    recordings = [recording("loud", 0.9), recording("loud", 0.9), recording("loud", 0.1), recording("quiet", 0.1)]
    report = zero_shot(LoudnessEncoder(), recordings)
    assert report.kinds == ("loud", "quiet")
    assert report.accuracy == 0.75
    assert report.recall == {"loud": pytest.approx(2 / 3), "quiet": 1.0}
    assert report.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert report.confusion.tolist() == [[2, 1], [0, 1]]
    assert "accuracy 0.750" in str(report)


def test_prompts_may_be_given_and_may_name_kinds_that_no_recording_has() -> None:
    prompts = {"noisy": ["so loud"], "calm": ["so quiet", "very quiet"], "third": ["quiet too"]}
    report = zero_shot(LoudnessEncoder(), [recording("noisy", 0.9), recording("calm", 0.1)], prompts)
    assert report.kinds == ("noisy", "calm", "third")
    assert report.accuracy == 1.0


def test_a_long_recording_is_the_mean_of_its_windows() -> None:
    half_loud = Recording("x", np.concatenate([np.full(480_000, 0.9), np.full(480_000, 0.1)]).astype(np.float32))
    assert embed(LoudnessEncoder(), half_loud.waveform) == pytest.approx([0.5**0.5, 0.5**0.5])
