"""`clapboard evaluate events`: figures on recordings with known events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.errors import TrainingError
from tests.clapboard.cli.conftest import Clapboard, document
from training.sounds.mixtures import Scene, mixture
from training.sounds.synthesis import synthesise

SCENE = Scene(duration_s=12.0, num_sounds=(2, 2), above_background_db=(25.0, 30.0))
FIELDS = ["method", "shots", "event_f1", "segment_f1", "collar_f1", "psds1", "num_seeds", "worst"]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Four recordings of three groups: sirens and rain in faint noise, and their events as CSV."""
    clips = {kind: [synthesise(kind, 1, 2.0)] for kind in ("siren", "dog bark")}
    rows, events = ["path,group"], ["path,start_s,end_s,label"]
    for number in range(4):
        mixed = mixture(clips, [], np.random.default_rng(number), SCENE)
        soundfile.write(tmp_path / f"{number}.flac", mixed.waveform, SAMPLE_RATE)
        rows.append(f"{number}.flac,{'ab' if number < 2 else number}")
        events += [f"{number}.flac,{sound.start_s},{sound.end_s},{sound.kind}" for sound in mixed.sounds]
    (tmp_path / "recordings.csv").write_text("\n".join(rows))
    (tmp_path / "events.csv").write_text("\n".join(events))
    return tmp_path


ASKED = ("evaluate", "events", "--manifest", "recordings.csv", "--model", "mini", "--shots", "0,2", "--seeds", "2")


def test_points_of_each_method_and_number_of_reviewed_recordings(clapboard: Clapboard, recordings: Path) -> None:
    done = clapboard(*ASKED, "--events", "events.csv", "--curve", "curve.svg", "--json", engine="torch")
    assert done.exit_code == 0, done.output
    report = document(done)
    points = report["points"]
    assert [(point["method"], point["shots"]) for point in points] == [
        (method, shots) for shots in (0, 2) for method in ("windows", "hysteresis", "served")
    ]
    assert all(list(point) == FIELDS for point in points)
    for point in points:
        assert 0 <= point["worst"] <= point["event_f1"] <= 1
        assert point["num_seeds"] == 2
    assert points[2]["event_f1"] > points[0]["event_f1"]  # frames tell when, windows don't
    assert any("psds1" in note for note in report["notes"])
    assert (recordings / "curve.svg").read_text().startswith("<svg")


def test_audacity_labels_give_the_same_figures_as_csv(clapboard: Clapboard, recordings: Path) -> None:
    from_csv = document(clapboard(*ASKED, "--events", "events.csv", "--json", engine="torch"))
    tables = recordings / "tables"
    tables.mkdir()
    rows = [line.split(",") for line in (recordings / "events.csv").read_text().splitlines()[1:]]
    for number in range(4):
        lines = [f"{start}\t{end}\t{label}" for path, start, end, label in rows if path == f"{number}.flac"]
        (tables / f"{number}.flac.labels.txt").write_text("\n".join(lines))
    assert document(clapboard(*ASKED, "--events", "tables", "--json", engine="torch"))["points"] == from_csv["points"]


def test_too_few_recordings_and_unknown_ones_are_refused_in_a_sentence(clapboard: Clapboard, recordings: Path) -> None:
    done = clapboard(*ASKED[:-3], "4", "--events", "events.csv", engine="torch")
    assert isinstance(done.exception, TrainingError)
    assert "too few to learn from 4" in str(done.exception)
    (recordings / "more.csv").write_text("path,start_s,end_s,label\nelsewhere.wav,0,1,rain\n")
    done = clapboard(*ASKED, "--events", "events.csv", "--events", "more.csv", engine="torch")
    assert isinstance(done.exception, TrainingError)
    assert "elsewhere.wav" in str(done.exception)
