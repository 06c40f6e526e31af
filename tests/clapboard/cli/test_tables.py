"""`clapboard evaluate tables` on small copies of the public data sets."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from clapboard.errors import NoDataSetError, SettingsError, TrainingError
from clapboard.model.clap import ClapEncoder
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.training import benchmark_layouts as layouts
from training.mini.esc10 import list_clips, load_recordings
from training.mini.zero_shot import zero_shot

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CLASSIFIED = ("esc50", "us8k", "vggsound", "gtzan", "fsd50k", "esc10")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """All data sets; of some, a clip is missing or damaged."""
    root = layouts.all_of_them(tmp_path / "data")
    (root / "ESC-50-master/audio/2-1-0.wav").unlink()
    (root / "VGGSound/videos/-v_111_000041.flac").write_text("no audio")
    (root / "VGGSound/videos/-v_10_30.wav").write_text("no audio either")
    (root / "Clotho_v2.1/evaluation/A clip, no. 1.wav").unlink()
    return root


def by_key(found: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: one for one in found["sets"]}


def test_mini_goes_through_all_data_sets(clapboard: Clapboard, root: Path) -> None:
    done = clapboard("evaluate", "tables", "--data", str(root), "--json", model="mini")
    assert done.exit_code == 1
    (found,) = lines(done)
    sets = by_key(found)
    assert (found["model"], found["dtype"], found["absent"]) == ("mini", "float32", [])
    assert list(sets) == ["audiocaps", "clotho", "esc50", "us8k", "vggsound", "gtzan", "fsd50k", "esc10"]
    for key in CLASSIFIED:
        assert 0 <= sets[key]["zero_shot"]["score"] <= 1
        assert sets[key]["supervised"]["score"] > 0.6, key  # tones of one pitch a label
        assert sets[key]["retrieval"] is None
    for key, clips in (("audiocaps", 4), ("clotho", 2)):
        assert (sets[key]["retrieval"]["num_clips"], sets[key]["retrieval"]["num_captions"]) == (clips, 5 * clips)
        assert sets[key]["zero_shot"] is sets[key]["supervised"] is None
    assert sets["esc50"]["missing"] == ["2-1-0.wav"]
    assert (sets["esc50"]["num_listed"], sets["esc50"]["num_heard"]) == (15, 14)
    assert [Path(one["path"]).name for one in sets["vggsound"]["unreadable"]] == ["-v_10_30.wav", "-v_111_000041.flac"]
    assert sets["vggsound"]["zero_shot"]["num_clips"] == 3
    assert sets["clotho"]["missing"] == ["A clip, no. 1.wav"]
    assert len(sets["gtzan"]["missing"]) == 980
    assert any(one["model"] == "LAION-CLAP" and one["per_cent"]["esc50"] for one in found["published"])


def test_people_get_the_authors_tables_and_hear_of_every_clip_that_is_left_out(
    clapboard: Clapboard, root: Path, tiny_clap: Path
) -> None:
    arguments = ("--data", str(root), "--sets", "esc50,clotho,vggsound")
    done = clapboard("evaluate", "tables", *arguments, model=tiny_clap)
    assert done.exit_code == 1
    titles = ("1. Retrieval on Clotho", "2. Zero-shot accuracy", "3. Supervised accuracy", "Accuracy by fold", "Clips")
    places = [done.stdout.index(title) for title in titles]
    assert places == sorted(places)
    assert "AudioCaps" not in done.stdout
    assert "91.0" in done.stdout
    assert "measured here" in done.stdout
    counts = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines()]
    assert ["ESC-50", "15", "14", "1", "0"] in counts
    assert ["VGGSound", "24", "22", "0", "2"] in counts
    assert "ESC-50 lacks the audio of 2-1-0.wav." in done.stderr
    assert "-v_10_30.wav is no audio" in done.stderr.replace("\n", " ")


def test_what_is_not_there_is_said_and_no_failure(clapboard: Clapboard, tmp_path: Path, tiny_clap: Path) -> None:
    layouts.esc10(tmp_path / "data" / "esc10")
    arguments = ("evaluate", "tables", "--data", str(tmp_path / "data"))
    done = clapboard(*arguments, model=tiny_clap)
    assert done.exit_code == 0, done.stderr
    assert f"GTZAN isn't in {tmp_path}/data: no folder has genres_original/ or genres/." in done.stderr
    (found,) = lines(clapboard(*arguments, "--json", model=tiny_clap))
    assert {one["key"] for one in found["absent"]} == {"audiocaps", "clotho", *CLASSIFIED} - {"esc10"}
    assert list(by_key(found)) == ["esc10"]


def test_a_figure_of_fewer_clips_than_the_set_has_is_marked(clapboard: Clapboard, tmp_path: Path) -> None:
    layouts.esc50(tmp_path / "data/esc50")
    layouts.esc10(tmp_path / "data/esc10")
    for kind in range(3):
        (tmp_path / f"data/esc50/audio/5-{kind}-0.wav").unlink()
    arguments = ("--data", str(tmp_path / "data"), "--sets", "esc50,esc10", "--prompts", "captions")
    done = clapboard("evaluate", "tables", *arguments, model="mini")
    assert done.exit_code == 1
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines()]
    ours = [row for row in rows if row and row[-1] == "measured here"]
    assert [row[0] for row in ours] == ["mini, --prompts captions", "mini"]  # zero-shot, and a probe, which reads none
    for _, esc50, esc10, _ in ours:
        assert re.fullmatch(r"\d+\.\d\*", esc50)
        assert re.fullmatch(r"\d+\.\d", esc10)
    assert " ".join(done.stdout.split()).count("* ESC-50 on 12 of 15 clips, 4 of 5 folds.") == 2


def test_a_set_that_is_asked_for_and_not_there_is_told_before_the_model_is_loaded(
    clapboard: Clapboard, tmp_path: Path
) -> None:
    layouts.esc10(tmp_path / "esc10")
    asked = ("evaluate", "tables", "--data", str(tmp_path))
    done = clapboard(*asked, "--sets", "esc10,gtzan,clotho", model="/nowhere")
    assert isinstance(done.exception, NoDataSetError)
    assert done.exception.exit_code == 3
    assert str(done.exception) == (
        f"Clotho isn't in {tmp_path}: no folder has clotho_captions_evaluation.csv. "
        f"GTZAN isn't in {tmp_path}: no folder has genres_original/ or genres/."
    )
    (tmp_path / "empty").mkdir()
    done = clapboard("evaluate", "tables", "--data", str(tmp_path / "empty"), model="/nowhere")
    assert isinstance(done.exception, NoDataSetError)
    assert "ESC-50 isn't in" in str(done.exception)


def test_without_a_probe_the_training_clips_are_not_asked_for(
    clapboard: Clapboard, root: Path, tiny_clap: Path
) -> None:
    arguments = ("--data", str(root), "--sets", "vggsound,fsd50k", "--no-supervised", "--json")
    (found,) = lines(clapboard("evaluate", "tables", *arguments, model=tiny_clap))
    sets = by_key(found)
    assert (sets["vggsound"]["num_listed"], sets["fsd50k"]["num_listed"]) == (4, 6)
    assert sets["vggsound"]["supervised"] is sets["fsd50k"]["supervised"] is None
    assert [Path(one["path"]).name for one in sets["vggsound"]["unreadable"]] == ["-v_111_000041.flac"]


def test_labels_may_be_read_in_captions(clapboard: Clapboard, tmp_path: Path, tiny_clap: Path) -> None:
    layouts.esc10(tmp_path / "data")
    arguments = ("evaluate", "tables", "--data", str(tmp_path / "data"), "--sets", "esc10", "--json")
    found = [lines(clapboard(*arguments, *way, model=tiny_clap))[0] for way in ((), ("--prompts", "captions"))]
    assert [one["prompts"] for one in found] == ["template", "captions"]
    assert by_key(found[0])["esc10"]["supervised"] == by_key(found[1])["esc10"]["supervised"]
    assert clapboard(*arguments, "--prompts", "poems", model=tiny_clap).exit_code == 2


def test_the_next_run_hears_nothing_anew(
    clapboard: Clapboard, tmp_path: Path, tiny_clap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.esc10(tmp_path / "data")
    cache = tmp_path / "kept"
    arguments = ("evaluate", "tables", "--data", str(tmp_path / "data"), "--cache", str(cache), "--json")
    first = clapboard(*arguments, model=tiny_clap)
    assert first.exit_code == 0, first.stderr
    assert (cache / "embeddings.db").is_file()
    monkeypatch.delattr(ClapEncoder, "embed_recording")
    assert lines(clapboard(*arguments, model=tiny_clap)) == lines(first)


def test_wrong_names_are_told_before_the_model_is_loaded(clapboard: Clapboard, tmp_path: Path) -> None:
    done = clapboard("evaluate", "tables", "--data", str(tmp_path), "--sets", "esc", model="/nowhere")
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith("Data set “esc” is unknown: choose from audiocaps,")
    done = clapboard("evaluate", "tables", "--data", str(tmp_path / "lost"), model="/nowhere")
    assert isinstance(done.exception, SettingsError)
    (layouts.esc50(tmp_path / "esc50") / "meta/esc50.csv").write_text("filename\n")
    done = clapboard("evaluate", "tables", "--data", str(tmp_path), model="/nowhere")
    assert isinstance(done.exception, TrainingError)


def test_mini_on_real_recordings_is_what_its_card_measures(clapboard: Clapboard, tmp_path: Path, esc10: Path) -> None:
    with (esc10 / "esc10.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == "4"]
    some = [row for number, row in enumerate(rows) if number % 4 == 0]  # two of each kind
    (tmp_path / "esc10").mkdir()
    (tmp_path / "esc10/audio").symlink_to(esc10 / "audio")
    layouts.table(tmp_path / "esc10/esc10.csv", [tuple(some[0]), *(tuple(row.values()) for row in some)])
    done = clapboard("evaluate", "tables", "--data", str(tmp_path), "--sets", "esc10", "--json", model="mini")
    assert done.exit_code == 0, done.stderr
    found = by_key(lines(done)[0])["esc10"]
    assert found["num_heard"] == 20
    card = zero_shot(
        ClapEncoder.load("mini", device="cpu", engine="torch"),
        load_recordings(list_clips(tmp_path / "esc10", [4])),
    )
    assert found["zero_shot"]["score"] == found["zero_shot"]["by_fold"]["4"] == card.accuracy >= 0.7
