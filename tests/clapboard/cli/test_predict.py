"""`clapboard predict`: files on disk, no server at all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapboard.errors import LabelConfigError, ModelError
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.audio_server import wav
from tests.support.processes import Installation


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    file = tmp_path / "clip.wav"
    file.write_bytes(wav(1))
    return file


def test_a_line_per_file_and_exit_code_1_for_a_bad_one(tmp_path: Path, tiny_clap: Path) -> None:
    with Installation(tmp_path / "house", tiny_clap) as house:
        (house.folder / "good.wav").write_bytes(wav(1))
        (house.folder / "also good.wav").write_bytes(wav(2))
        (house.folder / "text.wav").write_text("no audio at all")
        (house.folder / "empty.wav").touch()
        (house.folder / "folder.wav").mkdir()
        paths = ["text.wav", "good.wav", "missing.wav", "empty.wav", "folder.wav", "also good.wav"]
        done = house.run("predict", *paths, "--labels", "dog bark, rain", "--json")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 1
        assert [one["path"] for one in found] == paths
        for one in (found[1], found[5]):
            assert list(one) == ["path", "scores", "model_version"]
            assert list(one["scores"]) == ["dog bark", "rain"]
            assert sum(one["scores"].values()) == pytest.approx(1.0)
            assert re.fullmatch(r"tiny_clap0-[0-9a-f]{8}\.zero-shot\.[0-9a-f]{8}", one["model_version"])
        for position, reason in ((0, "can't be decoded|can be decoded"), (2, "exist"), (3, "empty"), (4, "no file")):
            assert list(found[position]) == ["path", "error"]
            assert re.search(reason, found[position]["error"])
        assert "Traceback" not in done.stderr
        assert not (house.folder / "state").exists()


def test_good_files_alone_end_with_exit_code_0(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    done = clapboard("predict", str(clip), str(clip), "--labels", "dog,rain", "--json", model=tiny_clap)
    assert done.exit_code == 0
    first, second = lines(done)
    assert first == second


def test_the_option_names_the_model_before_the_environment(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    done = clapboard("predict", str(clip), "--labels", "dog", "--model", str(tiny_clap), model="/nowhere")
    assert done.exit_code == 0


def test_a_file_is_heard_as_a_whole_where_the_option_or_the_environment_says_so(
    clapboard: Clapboard, tmp_path: Path, tiny_fused_clap: Path
) -> None:
    (tmp_path / "long.wav").write_bytes(wav(3, 23))
    asked = ["predict", str(tmp_path / "long.wav"), "--labels", "dog,rain", "--json"]
    ((windows,), (whole,)) = (
        lines(clapboard(*asked, option, model=tiny_fused_clap)) for option in ("--windows", "--fusion")
    )
    assert windows["model_version"] != whole["model_version"]
    assert windows["scores"] != whole["scores"]
    assert lines(clapboard(*asked, model=tiny_fused_clap)) == [windows]
    assert lines(clapboard(*asked, model=tiny_fused_clap, fusion=True)) == [whole]


def test_fusion_is_refused_where_the_checkpoint_has_none(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    done = clapboard("predict", str(clip), "--labels", "dog", "--fusion", model=tiny_clap)
    assert isinstance(done.exception, ModelError)
    assert "has learnt no feature fusion" in str(done.exception)


def test_people_get_the_best_labels_first(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    (scores,) = (
        one["scores"] for one in lines(clapboard("predict", "clip.wav", "--labels", "a,b,c", "--json", model=tiny_clap))
    )
    done = clapboard("predict", "clip.wav", "--labels", "a,b,c", model=tiny_clap)
    best = sorted(scores, key=scores.get, reverse=True)
    assert done.stdout == f"clip.wav: {'  '.join(f'{label} {scores[label]:.2f}' for label in best)}\n"


def test_names_that_look_like_markup_or_are_no_text_are_shown_as_they_are(
    clapboard: Clapboard, clip: Path, tiny_clap: Path
) -> None:
    strange = ["take [live].wav", "[/red].wav", "[red].wav"]
    for name in strange:
        file = clip.parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(clip.read_bytes())
    clip.with_name("[bad].wav").write_text("no audio")
    done = clapboard("predict", *strange, "[bad].wav", "--labels", "[a],[/b]", model=tiny_clap)
    assert done.exit_code == 1, done.exception
    for name in strange:
        assert f"{name}: " in done.stdout
    assert "[a] " in done.stdout
    assert "[bad].wav: " in done.stderr


def test_a_file_name_that_is_no_unicode_does_not_stop_the_others(
    clapboard: Clapboard, tmp_path: Path, tiny_clap: Path
) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / name).write_bytes(wav(1))
    done = clapboard("predict", name, "b.wav", "--labels", "a,b", "--json", model=tiny_clap)
    (found, missing) = lines(done)
    assert (found["path"], missing["path"]) == (name, "b.wav")
    assert "scores" in found
    assert clapboard("predict", name, "--labels", "a,b", model=tiny_clap).stdout.startswith("caf�.wav: ")


def test_a_long_recordings_scores_are_the_mean_of_its_windows(
    clapboard: Clapboard, tmp_path: Path, tiny_clap: Path
) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 30 * 48_000).astype(np.float32)
    soundfile.write(tmp_path / "all.wav", noise, 48_000, subtype="FLOAT")
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", noise[i * 480_000 : (i + 1) * 480_000], 48_000, subtype="FLOAT")
    done = clapboard("predict", "all.wav", "0.wav", "1.wav", "2.wav", "--labels", "a,b", "--json", model=tiny_clap)
    whole, *parts = (one["scores"]["a"] for one in lines(done))
    assert whole == pytest.approx(sum(parts) / 3, abs=1e-6)


def test_a_model_that_is_not_there_is_told_before_anything_is_read(clapboard: Clapboard, clip: Path) -> None:
    done = clapboard("predict", str(clip), "--labels", "a", model="/nowhere/clap")
    assert isinstance(done.exception, ModelError)
    assert done.exception.exit_code == 3
    assert "/nowhere/clap doesn't exist" in str(done.exception)


@pytest.mark.parametrize("labels", ["", "a,,b", "a,a", " , "])
def test_labels_that_are_none_are_refused(clapboard: Clapboard, clip: Path, labels: str) -> None:
    done = clapboard("predict", str(clip), "--labels", labels, model="/nowhere/clap")
    assert isinstance(done.exception, LabelConfigError)
    assert done.exception.exit_code == 2


def test_files_and_labels_are_asked_for(clapboard: Clapboard, clip: Path) -> None:
    assert clapboard("predict", "--labels", "a").exit_code == 2
    assert clapboard("predict", str(clip)).exit_code == 2
