"""`clapboard predict`: files on disk, no server at all."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.errors import LabelConfigError, ModelError
from clapboard.labels.label_config import parse_label_config
from clapboard.suggest.prediction import space_id
from tests.clapboard.cli.conftest import Clapboard, document
from tests.support.audio_server import wav
from tests.support.processes import Installation
from tests.support.recordings import silent_flac
from training.sounds.synthesis import synthesise


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
        found = json.loads(done.stdout)
        assert done.returncode == 1
        assert [one["path"] for one in found] == paths
        for one in (found[1], found[5]):
            assert list(one) == ["path", "duration_s", "scores", "suggested", "model_version"]
            assert list(one["scores"]) == ["dog bark", "rain"]
            assert sum(one["scores"].values()) == pytest.approx(1.0)
            assert re.fullmatch(r"tiny_clap-[0-9a-f]{8}\.zero-shot\.[0-9a-f]{8}", one["model_version"])
        for position, reason in (
            (0, "can't be decoded|can be decoded"),
            (2, "exist"),
            (3, "empty"),
            (4, "is a folder"),
        ):
            assert list(found[position]) == ["path", "error"]
            assert re.search(reason, found[position]["error"])
        assert "Traceback" not in done.stderr
        assert not (house.folder / "state").exists()


def test_good_files_alone_end_with_exit_code_0(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    done = clapboard("predict", str(clip), str(clip), "--labels", "dog,rain", "--json", model=tiny_clap)
    assert done.exit_code == 0
    first, second = document(done)
    assert first == second


def test_the_option_names_the_model_before_the_environment(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    done = clapboard("predict", str(clip), "--labels", "dog", "--model", str(tiny_clap), model="/nowhere")
    assert done.exit_code == 0


def test_a_file_is_heard_as_a_whole_where_the_option_or_the_environment_says_so(
    clapboard: Clapboard, tmp_path: Path, tiny_fused_clap: Path
) -> None:
    (tmp_path / "long.wav").write_bytes(wav(3, 23))
    asked = ["predict", str(tmp_path / "long.wav"), "--labels", "dog,rain", "--json"]
    ((windowed,), (whole,)) = (
        document(clapboard(*asked, option, model=tiny_fused_clap)) for option in ("--no-fusion", "--fusion")
    )
    assert windowed["model_version"] != whole["model_version"]
    assert windowed["scores"] != whole["scores"]
    assert document(clapboard(*asked, model=tiny_fused_clap)) == [windowed]
    assert document(clapboard(*asked, model=tiny_fused_clap, fusion=True)) == [whole]


def test_fusion_is_refused_where_the_checkpoint_has_none(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    done = clapboard("predict", str(clip), "--labels", "dog", "--fusion", model=tiny_clap)
    assert isinstance(done.exception, ModelError)
    assert "has learnt no feature fusion" in str(done.exception)


def test_people_get_the_best_labels_first(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    (scores,) = (
        one["scores"]
        for one in document(clapboard("predict", "clip.wav", "--labels", "a,b,c", "--json", model=tiny_clap))
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
    (found, missing) = document(done)
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
    whole, *parts = (one["scores"]["a"] for one in document(done))
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
    assert "give --labels" in str(clapboard("predict", str(clip)).exception)


CONFIG = """<View><Audio name="audio" value="$audio"/>
<Choices name="sound" toName="audio" choice="multiple" model_score_threshold="0.9">
  <Choice value="dog, near" predicted_values="dog bark"/><Choice value="rain" prompt="Rain falls."/></Choices>
<Choices name="place" toName="audio"><Choice value="indoors"/><Choice value="outdoors"/></Choices>
<TextArea name="notes" toName="audio"/></View>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds that the embedded model knows, one after the other, and a label config."""
    folder = tmp_path_factory.mktemp("sounds")
    sounds = [synthesise(kind, 2_100_000_002 + number, 12.0) for number, kind in enumerate(("rain", "dog bark"))]
    soundfile.write(folder / "both.wav", np.concatenate(sounds), SAMPLE_RATE)
    (folder / "config.xml").write_text(CONFIG)
    return folder


class TestWindowsAndChoice:
    """Twelve seconds of rain and then twelve of a barking dog."""

    @pytest.fixture
    def asked(self, clapboard: Clapboard, folder: Path) -> Callable[..., Result]:
        return lambda *arguments: clapboard("predict", str(folder / "both.wav"), *arguments, model="mini")

    def test_each_window_has_its_scores_start_and_end(self, asked: Callable[..., Result]) -> None:
        ((found),) = document(asked("--labels", "dog bark,rain", "--windows", "--json"))
        assert found["duration_s"] == 24.0
        spans = [(window["start_s"], window["end_s"]) for window in found["windows"]]
        assert spans == [(0.0, 10.0), (10.0, 20.0), (14.0, 24.0)]
        assert [window["suggested"] for window in found["windows"]] == [["rain"], ["dog bark"], ["dog bark"]]
        mean = sum(window["scores"]["rain"] for window in found["windows"]) / 3
        assert found["scores"]["rain"] == pytest.approx(mean, abs=1e-6)
        text = asked("--labels", "dog bark,rain", "--windows").stdout.splitlines()
        assert len(text) == 3
        assert re.search(r"both\.wav 10\.0–20\.0 s: dog bark 0\.\d\d  rain 0\.\d\d$", text[1])

    def test_any_number_of_labels_may_hold_above_a_threshold(self, asked: Callable[..., Result]) -> None:
        labels = ("--label", "dog, barking", "--label", "rain", "--labels", "siren")
        (one,) = document(asked(*labels, "--json"))
        (many,) = document(asked(*labels, "--multiple", "--json"))
        (none,) = document(asked(*labels, "--multiple", "--threshold", "1", "--json"))
        assert list(one["scores"]) == list(many["scores"]) == ["siren", "dog, barking", "rain"]
        assert sum(one["scores"].values()) == pytest.approx(1.0)
        assert len(one["suggested"]) == 1
        assert sorted(many["suggested"]) == ["dog, barking", "rain"]
        assert none["suggested"] == []
        assert len({found["model_version"] for found in (one, many, none)}) == 3
        assert asked(*labels, "--multiple").stdout.strip().endswith(("→ rain, dog, barking", "→ dog, barking, rain"))
        assert asked(*labels, "--multiple", "--threshold", "1").stdout.strip().endswith("→ nothing")

    def test_a_label_config_says_all_that_it_says_in_label_studio(
        self, asked: Callable[..., Result], folder: Path
    ) -> None:
        done = asked("--config", str(folder / "config.xml"), "--json")
        (found,) = document(done)
        assert list(found["scores"]) == ["sound", "place"]
        assert list(found["scores"]["sound"]) == ["dog, near", "rain"]
        assert sum(found["scores"]["place"].values()) == pytest.approx(1.0)
        assert found["suggested"]["sound"] == [
            label for label, score in found["scores"]["sound"].items() if score >= 0.9
        ]
        space = parse_label_config(CONFIG)
        assert found["model_version"].endswith(f".zero-shot.{space_id(space)}")
        assert "TextArea “notes” is left to people" in done.stderr

    def test_csv_has_a_line_for_each_label_of_each_window(self, asked: Callable[..., Result], folder: Path) -> None:
        done = asked("nowhere.wav", "--config", str(folder / "config.xml"), "--windows", "--csv")
        assert done.exit_code == 1
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert len(rows) == 3 * 4 + 1
        assert (rows[0]["control"], rows[0]["label"], rows[0]["start_s"], rows[0]["end_s"]) == (
            *("sound", "dog, near", "0.0", "10.0"),
        )
        assert {row["suggested"] for row in rows[:-1]} == {"0", "1"}
        assert 0 <= float(rows[0]["score"]) <= 1
        assert rows[-1]["path"] == "nowhere.wav"
        assert "doesn't exist" in rows[-1]["error"]
        assert rows[-1]["score"] == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "config.xml", "--labels", "a"], "leave out the other options"),
        (["--config", "config.xml", "--multiple"], "leave out the other options"),
        (["--config", "config.xml", "--threshold", "0.5"], "leave out the other options"),
        (["--labels", "a", "--json", "--csv"], "choose one of --csv and --json"),
        (["--labels", "a", "--threshold", "1.5"], "less than or equal to 1"),
        (["--config", "nowhere.xml"], "nowhere.xml can't be read (No such file or directory)"),
        (["--config", "."], "can't be read (Is a directory)"),
        (["--config", "latin.xml"], "latin.xml can't be read (it is not UTF-8 text)"),
        (["--config", "empty.xml"], "The label config is empty"),
        (["--config", "text.xml"], "is not well-formed XML"),
        (
            ["--config", "region.xml"],
            "The label config region.xml asks for regions alone: add --regions.",
        ),
        (
            ["--config", "rating.xml"],
            "rating.xml has no control that gets suggestions. The Rating “r” is left to people",
        ),
        (["--labels", "a", "--windows"], "add --no-fusion"),
        (["--label", os.fsdecode(b"caf\xe9")], "The label “caf�” is not UTF-8 text"),
    ],
)
def test_what_cant_be_asked_is_said_in_a_sentence(
    clapboard: Clapboard, tmp_path: Path, clip: Path, options: list[str], said: str
) -> None:
    (tmp_path / "config.xml").write_text(CONFIG)
    (tmp_path / "latin.xml").write_bytes(b"<View>caf\xe9</View>")
    (tmp_path / "empty.xml").touch()
    (tmp_path / "text.xml").write_text("<View>")
    labels = '<Labels name="l" toName="a"><Label value="x"/></Labels>'
    (tmp_path / "region.xml").write_text(f'<View><Audio name="a" value="$a"/>{labels}</View>')
    rating = '<Rating name="r" toName="a"/>'
    (tmp_path / "rating.xml").write_text(f'<View><Audio name="a" value="$a"/>{rating}</View>')
    done = clapboard("predict", str(clip), *options, model="/nowhere/clap", fusion="--windows" in options)
    assert said in f"{done.exception}" + done.stderr.replace("\n", " ")
    assert done.stdout == ""


def test_json_is_one_list_whatever_happens_on_the_way(tmp_path: Path, tiny_clap: Path) -> None:
    with Installation(tmp_path / "house", tiny_clap) as house:
        names = ["two\nlines.wav", os.fsdecode(b"caf\xe9.wav")]
        for name in names:
            (house.folder / name).write_bytes(wav(1))
        done = house.run("predict", *names, "--labels", "a,b", "--json")
        assert done.returncode == 0
        assert [one["path"] for one in json.loads(done.stdout)] == names
        text = house.run("predict", *names, "--labels", "a,b")
        assert [line.partition(":")[0] for line in text.stdout.splitlines()] == ["two\\nlines.wav", "caf�.wav"]
        missing = house.run("predict", "nowhere.wav", "--labels", "a", "--json", model="/nowhere/clap")
        assert (missing.returncode, json.loads(missing.stdout)["error"]) == (3, "model")


def test_a_file_that_is_too_long_has_its_own_error(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    file = clip.with_name("long.flac")
    file.write_bytes(silent_flac(20))
    done = clapboard("predict", str(file), str(clip), "--labels", "a,b", "--json", model=tiny_clap, max_audio_s=15)
    assert done.exit_code == 1
    refused, scored = document(done)
    assert "longer than the 15 s that CLAPBOARD_MAX_AUDIO_S allows" in refused["error"]
    assert "scores" in scored
