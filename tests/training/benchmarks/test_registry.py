from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clapboard.errors import SettingsError
from tests.training import benchmark_layouts as layouts
from training.benchmarks.registry import SOURCES, choose, locate


def test_all_lie_below_one_root_and_none_is_taken_for_another(tmp_path: Path) -> None:
    root = layouts.all_of_them(tmp_path)
    found = {one.key: locate(one, root) for one in SOURCES}
    assert found == {
        "esc50": root / "ESC-50-master",
        "esc10": root / "esc10",
        "us8k": root / "UrbanSound8K",
        "gtzan": root / "gtzan",
        "vggsound": root / "VGGSound",
        "fsd50k": root / "FSD50K",
        "audiocaps": root / "AudioCaps",
        "clotho": root / "Clotho_v2.1",
    }


@pytest.mark.parametrize(
    ("key", "build", "below"),
    [
        ("esc50", layouts.esc50, ""),
        ("esc50", layouts.esc50, "ESC-50"),
        ("esc50", layouts.esc50, "esc50/ESC-50-master"),
        ("esc10", layouts.esc10, ""),
        ("us8k", layouts.urban_sound_8k, "urbansound8k"),
        ("gtzan", layouts.gtzan, "GTZAN/genres_original"),
        ("gtzan", layouts.gtzan, "genres"),
        ("vggsound", layouts.vggsound, "vgg-sound"),
        ("fsd50k", layouts.fsd50k, "FSD50K"),
        ("audiocaps", layouts.audio_caps, ""),
        ("audiocaps", layouts.audio_caps, "audio_caps"),
        ("audiocaps", layouts.audio_caps_of_aac_datasets, ""),
        ("audiocaps", layouts.audio_caps_of_aac_datasets, "AUDIOCAPS"),
        ("audiocaps", layouts.audio_caps_of_its_authors, "audiocaps"),
        ("clotho", layouts.clotho, "clotho"),
        ("clotho", layouts.clotho_of_dcase, ""),
        ("clotho", layouts.clotho_of_dcase, "CLOTHO_v2.1"),
        ("esc10", layouts.esc50, "ESC-50-master"),
        ("gtzan", layouts.gtzan, "GTZAN"),
    ],
)
def test_each_is_found_by_its_usual_names(tmp_path: Path, key: str, build: Callable[[Path], Path], below: str) -> None:
    build(tmp_path / below)
    (one,) = choose([key])
    folder = locate(one, tmp_path)
    assert folder is not None
    assert any(clip.path for clip in one.read(folder).clips)


def test_another_sets_test_table_above_it_is_no_reason_to_miss_audio_caps(tmp_path: Path) -> None:
    layouts.audio_caps_of_its_authors(tmp_path / "audiocaps")
    layouts.table(tmp_path / "test.csv", [("filename", "label"), ("a.wav", "dog")])
    layouts.table(tmp_path / "audiocaps/test.csv", [("filename", "label"), ("a.wav", "dog")])
    (one,) = choose(["audiocaps"])
    assert locate(one, tmp_path) == tmp_path / "audiocaps"
    assert all(clip.path for clip in one.read(tmp_path / "audiocaps").clips)


def test_what_is_not_there_is_none_and_a_folder_by_another_name_is_no_find(tmp_path: Path) -> None:
    layouts.esc50(tmp_path / "music")
    layouts.table(tmp_path / "test.csv", [("filename", "label"), ("a.wav", "dog")])
    assert all(locate(one, tmp_path) is None for one in SOURCES)


def test_a_root_that_is_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere doesn't exist: name the one"):
        locate(SOURCES[0], tmp_path / "nowhere")


def test_names_choose_in_the_registrys_order_and_none_chooses_all() -> None:
    assert [one.key for one in choose(["esc50", "clotho"])] == ["clotho", "esc50"]
    assert choose([]) == SOURCES
    with pytest.raises(SettingsError, match=r"Data set “esc” is unknown: choose from audiocaps, clotho, esc50, "):
        choose(["esc50", "esc"])
