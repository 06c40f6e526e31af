"""`clapboard predict --regions`: when labels sound in files on disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clapboard.errors import LabelConfigError, RequestError
from clapboard.event_tables.formats import read_events
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.audio_server import wav

CONFIG = """<View><Audio name="a" value="$audio"/><Labels name="events" toName="a">
<Label value="Dog" min_duration="0.1"/><Label value="Rain"/></Labels></View>"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    file = tmp_path / "yard.wav"
    file.write_bytes(wav(1, 14))
    return file


def test_a_line_of_json_for_each_file_and_exit_code_1_for_a_bad_one(
    clapboard: Clapboard, clip: Path, tiny_clap: Path
) -> None:
    asked = ["predict", "yard.wav", "missing.wav", "--labels", "dog, rain", "--threshold", "0", "--regions", "--json"]
    done = clapboard(*asked, model=tiny_clap)
    assert done.exit_code == 1
    found, missing = lines(done)
    assert list(found) == ["path", "duration_s", "regions", "model_version"]
    assert (found["path"], found["duration_s"]) == ("yard.wav", 14.0)
    assert re.fullmatch(r"tiny_clap-[0-9a-f]{8}\.zero-shot\.[0-9a-f]{8}", found["model_version"])
    for region in found["regions"]:
        assert list(region) == ["start", "end", "label", "score"]
        assert 0 <= region["start"] < region["end"] <= 14.0
        assert region["label"] in ("dog", "rain")
    assert list(missing) == ["path", "error"]


@pytest.mark.parametrize("table", ["raven", "audacity", "csv"])
def test_regions_are_written_beside_the_file(clapboard: Clapboard, clip: Path, tiny_clap: Path, table: str) -> None:
    asked = ["predict", str(clip), "--labels", "dog,rain", "--threshold", "0", "--format", table, "--json"]
    (found,) = lines(clapboard(*asked, model=tiny_clap))
    written = Path(found["table"])
    assert written.parent == clip.parent
    rows = [(row.start_s, row.end_s, row.label) for row in read_events(written)]
    assert rows == [(region["start"], region["end"], region["label"]) for region in found["regions"]]


def test_a_config_with_labels_is_asked_for_regions(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    (clip.parent / "config.xml").write_text(CONFIG)
    (found,) = lines(clapboard("predict", "yard.wav", "--config", "config.xml", "--regions", "--json", model=tiny_clap))
    assert {region["label"] for region in found["regions"]} <= {"Dog", "Rain"}
    done = clapboard("predict", "yard.wav", "--config", "config.xml", model=tiny_clap)
    assert isinstance(done.exception, LabelConfigError)
    assert "add --regions" in str(done.exception)


def test_a_config_without_labels_has_no_regions(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    whole = '<View><Audio name="a" value="$audio"/><Choices name="c" toName="a"><Choice value="dog"/></Choices></View>'
    (clip.parent / "config.xml").write_text(whole)
    done = clapboard("predict", "yard.wav", "--config", "config.xml", "--regions", model=tiny_clap)
    assert isinstance(done.exception, LabelConfigError)
    assert "no Labels" in str(done.exception)


@pytest.mark.parametrize("option", ["--windows", "--multiple", "--csv"])
def test_options_about_whole_files_are_refused(clapboard: Clapboard, clip: Path, option: str) -> None:
    done = clapboard("predict", "yard.wav", "--labels", "dog", "--regions", option)
    assert isinstance(done.exception, RequestError)
    assert option in str(done.exception)


def test_people_see_the_regions_below_the_file(clapboard: Clapboard, clip: Path, tiny_clap: Path) -> None:
    asked = ["predict", "yard.wav", "--labels", "dog,rain", "--threshold", "0", "--regions"]
    found = lines(clapboard(*asked, "--json", model=tiny_clap))[0]["regions"]
    shown = clapboard(*asked, model=tiny_clap).stdout.splitlines()
    assert shown[0].startswith("yard.wav: ")
    assert len(shown) == 1 + len(found)
