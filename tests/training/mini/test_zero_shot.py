from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from training.mini.esc10 import Recording
from training.mini.zero_shot import zero_shot


class LoudnessEncoder:
    """Places a sound by its loudness and a text by the words «loud» and «quiet» in it."""

    logit_scale = 10.0

    def embed_recording(self, recording: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        loud = np.abs(recording).max() > 0.5
        return np.array([1.0, 0.0] if loud else [0.0, 1.0], np.float32)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[1.0, 0.0] if "loud" in text else [0.0, 1.0] for text in texts], np.float32)


def recording(kind: str, level: float, seconds: int = 1) -> Recording:
    return Recording(kind, np.full(48_000 * seconds, level, np.float32))


def test_the_zero_shot_report_counts_what_was_called_what() -> None:
    recordings = [recording("loud", 0.9), recording("loud", 0.9), recording("loud", 0.1), recording("quiet", 0.1)]
    found = zero_shot(LoudnessEncoder(), recordings)
    assert found.labels == ("loud", "quiet")
    assert found.accuracy == 0.75
    assert found.recall_by_label == {"loud": pytest.approx(2 / 3), "quiet": 1.0}
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert found.confusion == ((2, 1), (0, 1))
    assert "accuracy 0.750" in str(found)
    assert found.calibration_error == pytest.approx(0.25, abs=1e-3)


def test_prompts_may_be_given_and_may_name_kinds_that_no_recording_has() -> None:
    prompts = {"noisy": ["so loud"], "calm": ["so quiet", "very quiet"], "third": ["quiet too"]}
    found = zero_shot(LoudnessEncoder(), [recording("noisy", 0.9), recording("calm", 0.1)], prompts)
    assert found.labels == ("noisy", "calm", "third")
    assert found.accuracy == 1.0
