"""`clapboard evaluate`: a manifest of files on disk, no server at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
import soundfile

from clapboard.errors import SettingsError, TrainingError
from tests.clapboard.cli.conftest import Clapboard, document, lines


def manifest_of(folder: Path, per_label: Mapping[str, int], *, folds: int = 0) -> Path:
    """A manifest of short tones and noises, each its own group."""
    rng = np.random.default_rng(0)
    rows = [f"path,label,group{',fold' if folds else ''}"]
    for label, number in per_label.items():
        for index in range(number):
            noise = rng.uniform(-0.5, 0.5, 8_000)
            tone = 0.5 * np.sin(np.arange(8_000) * rng.uniform(0.1, 0.3))
            soundfile.write(folder / f"{label}{index}.wav", tone if label == "tone" else noise, 16_000)
            rows.append(f"{label}{index}.wav,{label},{label}{index}{f',{index % folds + 1}' if folds else ''}")
    manifest = folder / "M.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def test_zero_shot_says_how_well_texts_tell_the_clips_apart(
    clapboard: Clapboard, tmp_path: Path, tiny_clap: Path
) -> None:
    manifest = manifest_of(tmp_path, {"noise": 3, "tone": 2})
    done = clapboard("evaluate", "zero-shot", "--manifest", str(manifest), "--json", model=tiny_clap)
    assert done.exit_code == 0, done.stderr
    (found,) = lines(done)
    assert found["labels"] == ["noise", "tone"]
    assert found["support"] == [3, 2]
    assert found["num_clips"] == sum(map(sum, found["confusion"])) == 5
    assert found["accuracy"] == sum(found["confusion"][i][i] for i in (0, 1)) / 5
    assert {"macro_f1", "recall", "calibration_error"} <= set(found)
    assert found["unreadable"] == []
    assert found["model_version"].startswith("tiny_clap-")
    assert ".zero-shot." in found["model_version"]


def test_what_evaluates_is_what_predicts(clapboard: Clapboard, tmp_path: Path, tiny_clap: Path) -> None:
    manifest = manifest_of(tmp_path, {"noise": 4, "tone": 4})
    evaluated = lines(clapboard("evaluate", "zero-shot", "--manifest", str(manifest), "--json", model=tiny_clap))[0]
    files = [str(tmp_path / f"{label}{index}.wav") for label in ("noise", "tone") for index in range(4)]
    predicted = document(clapboard("predict", *files, "--labels", "noise,tone", "--json", model=tiny_clap))
    assert predicted[0]["model_version"] == evaluated["model_version"]
    called = [max(one["scores"], key=one["scores"].get) for one in predicted]
    assert evaluated["confusion"] == [[called[i : i + 4].count(name) for name in ("noise", "tone")] for i in (0, 4)]


def test_labels_may_be_read_in_an_ensemble_of_captions(clapboard: Clapboard, tmp_path: Path, tiny_clap: Path) -> None:
    manifest = manifest_of(tmp_path, {"noise": 2, "tone": 2})
    command = ("evaluate", "zero-shot", "--manifest", str(manifest), "--json")
    plain, same, captions = (
        lines(clapboard(*command, *options, model=tiny_clap))[0]
        for options in ((), ("--prompts", "template"), ("--prompts", "captions"))
    )
    assert plain == same
    assert captions["labels"] == plain["labels"]
    assert captions["model_version"] != plain["model_version"]
    assert captions["calibration_error"] != plain["calibration_error"]
    assert clapboard(*command, "--prompts", "poems", model=tiny_clap).exit_code == 2


def test_a_file_that_can_not_be_decoded_is_named_counted_and_left_out(
    clapboard: Clapboard, tmp_path: Path, tiny_clap: Path
) -> None:
    manifest = manifest_of(tmp_path, {"noise": 6, "tone": 6}, folds=2)
    (tmp_path / "noise0.wav").write_text("no audio")
    arguments = ("--manifest", str(manifest), "--shots", "0,1", "--seeds", "1")
    done = clapboard("evaluate", "few-shot", *arguments, "--json", model=tiny_clap)
    assert done.exit_code == 1
    (found,) = lines(done)
    assert found["num_clips"] == 11
    assert [one["path"] for one in found["unreadable"]] == [str(tmp_path / "noise0.wav")]
    done = clapboard("evaluate", "few-shot", *arguments, model=tiny_clap)
    assert done.exit_code == 1
    assert f"{tmp_path}/noise0.wav: noise0.wav" in done.stderr
    assert "1 clip was left out." in done.stderr


def test_few_shot_finetunes_and_says_what_the_ladder_serves(
    clapboard: Clapboard, tmp_path: Path, tiny_clap: Path
) -> None:
    manifest = manifest_of(tmp_path, {"noise": 22, "tone": 22})
    curve = tmp_path / "curve.svg"
    options = ("--shots", "8,0,2", "--seeds", "2", "--finetune-seeds", "1", "--curve", str(curve), "--json")
    done = clapboard("evaluate", "few-shot", "--manifest", str(manifest), *options, model=tiny_clap)
    assert done.exit_code == 0, done.stderr
    (found,) = lines(done)
    assert (found["labels"], found["num_clips"], found["test_fold"]) == (["noise", "tone"], 44, None)
    points = {(point["shots"], point["method"]): point for point in found["points"]}
    assert sorted({shots for shots, _ in points}) == [0, 2, 8]
    assert points[8, "our finetuning"]["num_seeds"] == points[8, "ladder"]["num_seeds"] == 1
    assert points[2, "our finetuning"]["mean"] is None
    assert points[8, "our head"]["mean"] > 0.9
    assert points[0, "ladder"]["mean"] == points[0, "zero-shot"]["mean"]
    drawn = minidom.parse(str(curve)).getElementsByTagName("polyline")
    assert len(drawn) == len({method for (_, method), point in points.items() if point["num_seeds"]})


def test_a_curve_that_can_not_be_written_is_told_before_anything_is_heard(
    clapboard: Clapboard, tmp_path: Path, tiny_clap: Path
) -> None:
    manifest = manifest_of(tmp_path, {"noise": 4, "tone": 4})
    for curve in (tmp_path / "nowhere" / "curve.svg", tmp_path):
        options = ("--shots", "0", "--curve", str(curve))
        done = clapboard("evaluate", "few-shot", "--manifest", str(manifest), *options, model=tiny_clap)
        assert isinstance(done.exception, SettingsError)
        assert f"{curve} can't be written" in str(done.exception)
        assert done.stdout == ""


def test_people_get_a_table_with_a_line_for_each_answer(clapboard: Clapboard, tmp_path: Path, tiny_clap: Path) -> None:
    manifest = manifest_of(tmp_path, {"noise": 4, "tone": 4}, folds=2)
    done = clapboard("evaluate", "few-shot", "--manifest", str(manifest), "--shots", "0,1", model=tiny_clap)
    assert done.exit_code == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row.split("│")[2].strip() for row in rows[:3]] == ["zero-shot", "centred zero-shot", "ladder"]
    assert len(rows) == 3 + 6
    done = clapboard("evaluate", "zero-shot", "--manifest", str(manifest), model=tiny_clap)
    assert done.exit_code == 0, done.stderr
    assert "8 clips: accuracy" in done.stdout
    assert "Confusion" in done.stdout


@pytest.mark.parametrize("shots", ["1,-1", "few", "", "1.5"])
def test_shots_that_are_no_numbers_are_refused(clapboard: Clapboard, shots: str) -> None:
    done = clapboard("evaluate", "few-shot", "--manifest", "nowhere.csv", "--shots", shots)
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception) == f"Shots “{shots}” are not numbers of labels: write them as 0,1,2,4."


def test_a_bad_manifest_is_one_sentence_before_the_model_is_loaded(clapboard: Clapboard, tmp_path: Path) -> None:
    (tmp_path / "M.csv").write_text("path,label\n")
    for command in ("zero-shot", "few-shot"):
        done = clapboard("evaluate", command, "--manifest", "M.csv", model="/nowhere")
        assert isinstance(done.exception, TrainingError)
        assert str(done.exception).startswith("Manifest M.csv has no column “group”")
    manifest_of(tmp_path, {"noise": 2, "tone": 2}, folds=2)
    done = clapboard("evaluate", "few-shot", "--manifest", "M.csv", "--test-fold", "7", model="/nowhere")
    assert str(done.exception) == "Fold 7 doesn't exist: choose from 1, 2."
