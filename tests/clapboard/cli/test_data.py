"""`clapboard data`: built, shown and verified, with figures for programs and tables for people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clapboard.errors import SettingsError, TrainingError
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.annotation_events import annotation, clip
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import TOKEN, FakeLabelStudio
from tests.training.corpus.recorded import record
from training.corpus.stream import PairStream

ROOT = Path(__file__).parents[3]


def sounds(folder: Path) -> Path:
    """A folder of two kinds of sound, each three times; one of them is there twice."""
    for number in range(3):
        record(folder / "dog" / f"{number}.wav", number)
        record(folder / "rain" / f"{number}.flac", 2 + number)
    return folder


def test_what_was_built_can_be_shown_verified_and_heard(clapboard: Clapboard, tmp_path: Path) -> None:
    built = clapboard("data", "build", str(sounds(tmp_path / "kinds")), "--out", "set", "--json")
    assert built.exit_code == 0, built.stderr
    (told,) = lines(built)
    (manifest,) = told["data_sets"]
    assert (told["folder"], manifest["samples"], manifest["found"]) == ("set", 5, 6)
    assert manifest["dropped"] == {"duplicate": 1}
    (shown,) = lines(clapboard("data", "show", "set", "--json"))
    assert shown == told
    (verified,) = lines(clapboard("data", "verify", "set", "--json"))
    assert verified == {"shards": 1, "damaged": {}}
    heard = {tags for sample in PairStream(tmp_path / "set", seed=0).epoch(0) if (tags := sample.tags)}
    assert heard == {("dog",), ("rain",), ("dog", "rain")}


def test_people_get_tables(clapboard: Clapboard, tmp_path: Path) -> None:
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds/L[b].csv").write_text("path,caption\n1.wav,a dog barks\n2.wav,\n3.wav,ein Hund bellt zweimal\n")
    for number in (1, 2, 3):
        record(tmp_path / f"kinds/{number}.wav", number)
    done = clapboard("data", "build", "kinds/L[b].csv", "--out", "set")
    assert done.exit_code == 0, done.stderr
    for text in ("kinds/L[b].csv", "CSV", "missing text", "other language", "1 of 3 pairs kept."):
        assert text in done.stdout
    assert clapboard("data", "show", "set").stdout == done.stdout


def test_a_sound_that_can_not_be_read_is_named_and_the_exit_code_is_1(clapboard: Clapboard, tmp_path: Path) -> None:
    (sounds(tmp_path / "kinds") / "dog/[x].wav").write_bytes(b"no sound")
    done = clapboard("data", "build", "kinds", "--out", "set")
    assert done.exit_code == 1
    assert "kinds: dog/[x].wav: dog/[x].wav is no audio that can be decoded" in done.stderr
    assert "5 of 7 pairs kept." in done.stdout
    assert lines(clapboard("data", "show", "set", "--json"))[0]["data_sets"][0]["dropped"]["unreadable"] == 1


def test_every_bound_can_be_given(clapboard: Clapboard, tmp_path: Path) -> None:
    sounds(tmp_path / "kinds")
    (tmp_path / "kinds/dog/0.txt").write_text("a dog\na dog barks at night\nein Hund bellt zweimal")
    options = ["--min-s", "0.2", "--max-s", "9", "--min-words", "3", "--max-words", "5", "--language", "de,en"]
    options += ["--min-loudness", "-40", "--max-clipped", "0.5", "--seed", "7", "--samples-per-shard", "1"]
    options += ["--validation-share", "0.25", "--threads", "2"]
    (told,) = lines(clapboard("data", "build", "kinds", "--out", "set", "--json", *options))
    train, validation = told["data_sets"]
    assert (train["samples"], validation["samples"], len(train["shards"])) == (3, 1, 3)
    assert train["captions"] + validation["captions"] == 2
    assert train["settings"] == {
        "min_s": 0.2,
        "max_s": 9.0,
        "min_words": 3,
        "max_words": 5,
        "languages": ["de", "en"],
        "min_lufs": -40.0,
        "max_clipped_share": 0.5,
        "seed": 7,
        "samples_per_shard": 1,
        "validation_share": 0.25,
    }
    any_language = clapboard("data", "build", "kinds", "--out", "other", "--json", "--language", "any")
    assert lines(any_language)[0]["data_sets"][0]["settings"]["languages"] == []


def test_damaged_shards_are_named_and_the_exit_code_is_1(clapboard: Clapboard, tmp_path: Path) -> None:
    clapboard("data", "build", str(sounds(tmp_path / "kinds")), "--out", "set", "--validation-share", "0.4")
    (tmp_path / "set/validation/shard-000000.tar").write_bytes(b"")
    done = clapboard("data", "verify", "set")
    assert done.exit_code == 1
    assert "set/validation/shard-000000.tar is damaged: it has 0 bytes instead of" in done.stderr
    assert "1 of 2 shards as written." in done.stdout
    (found,) = lines(clapboard("data", "verify", "set", "--json"))
    assert list(found["damaged"]) == ["set/validation/shard-000000.tar"]


def test_a_project_of_label_studio_is_a_source_beside_others(clapboard: Clapboard, tmp_path: Path) -> None:
    with FakeLabelStudio() as fake, AudioServer() as audio:
        fake.add_tasks(6, audio.task(1), audio.task(2))
        fake.annotations = {number: annotation(number, clip("dog"), task=number) for number in (1, 2)}
        settings = {"label_studio_url": fake.url, "label_studio_api_key": TOKEN, "allow_private_urls": True}
        done = clapboard(
            *("data", "build", str(sounds(tmp_path / "kinds")), "project:6", "--out", "set", "--json"), **settings
        )
    assert done.exit_code == 0, done.stderr
    (manifest,) = lines(done)[0]["data_sets"]
    assert [(source["kind"], source["pairs"]) for source in manifest["sources"]] == [("folder", 6), ("Label Studio", 2)]
    assert manifest["samples"] == 7


def test_without_what_it_needs_the_build_says_what_to_install(tmp_path: Path) -> None:
    build = "import sys; sys.modules['lingua'] = None; from clapboard.cli import main; main()"
    command = [sys.executable, "-c", build, "data", "build", "kinds", "--out", "set"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: Building data sets needs lingua: run pip install '.[data]'.\n"


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        (["nothing"], TrainingError, "Source nothing doesn't exist: name a folder"),
        (["kinds", "--language", "klingon"], SettingsError, "Language “klingon” is unknown"),
        (["kinds", "--language", ","], SettingsError, "There are no languages"),
        (["kinds", "--min-s", "3", "--max-s", "2"], TrainingError, "The minimum length is above the maximum"),
    ],
)
def test_wrong_usage_is_one_sentence(
    clapboard: Clapboard, tmp_path: Path, arguments: list[str], error: type[Exception], reason: str
) -> None:
    sounds(tmp_path / "kinds")
    done = clapboard("data", "build", *arguments, "--out", "set")
    assert isinstance(done.exception, error)
    assert reason in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["kinds"]
