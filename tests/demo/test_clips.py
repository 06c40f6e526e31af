"""The demo's own sounds, and the picture of the clicks saved."""

from __future__ import annotations

from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest

from clapboard.audio.windows import SAMPLE_RATE
from demo import plant, pump
from demo.clicks import picture
from demo.clips import write_manifest
from training.evaluation.listed_clips import read_clips


@pytest.mark.parametrize("state", pump.STATES)
def test_a_pump_sounds_the_same_for_the_same_seed_and_else_is_another_one(state: str) -> None:
    sound = pump.pump(state, 7, 0.5)
    assert sound.shape == (SAMPLE_RATE // 2,)
    assert sound.dtype == np.float32
    assert 0.05 < np.abs(sound).max() <= 1.0
    assert np.array_equal(sound, pump.pump(state, 7, 0.5))
    assert not np.array_equal(sound, pump.pump(state, 8, 0.5))


@pytest.mark.parametrize("state", plant.STATES)
def test_a_plant_sounds_the_same_for_the_same_seed(state: str) -> None:
    sound = plant.plant(state, 7, 1.0)
    assert sound.shape == (SAMPLE_RATE,)
    assert np.isfinite(sound).all()
    assert np.array_equal(sound, plant.plant(state, 7, 1.0))


def test_the_pumps_manifest_is_one_that_can_be_evaluated(tmp_path: Path) -> None:
    write_manifest(tmp_path / "pump", num_clips=7)
    clips = read_clips(tmp_path / "pump" / "clips.csv")
    assert {clip.label for clip in clips} == set(pump.STATES)
    assert len({clip.group for clip in clips}) == 7
    assert all(clip.path.is_file() for clip in clips)


def test_the_picture_of_the_clicks_has_both_curves() -> None:
    points = [{"labels": 20.0 * n, "saved_of_last": n / 5, "saved_of_all": n / 10} for n in range(1, 5)]
    drawn = minidom.parseString(picture(points))
    curves = [line.getAttribute("points").split() for line in drawn.getElementsByTagName("polyline")]
    assert [len(curve) for curve in curves] == [4, 4]
    heights = [float(point.split(",")[1]) for point in curves[0]]
    assert heights == sorted(heights, reverse=True)  # upwards
