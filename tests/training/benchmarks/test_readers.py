from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from clapboard.errors import TrainingError
from tests.training import benchmark_layouts as layouts
from training.benchmarks.audio_files import AudioFiles
from training.benchmarks.benchmark import Benchmark
from training.benchmarks.registry import choose


def read(key: str, folder: Path) -> Benchmark:
    (source,) = choose([key])
    return source.read(folder)


def missing(benchmark: Benchmark) -> list[str]:
    return [clip.name for clip in benchmark.clips if clip.path is None]


def test_esc_50_has_labels_and_folds(tmp_path: Path) -> None:
    layouts.esc50(tmp_path)
    (tmp_path / "audio/3-1-0.wav").unlink()
    found = read("esc50", tmp_path)
    assert found.labels == ("crackling_fire", "dog", "mouse_click")
    assert Counter(clip.part for clip in found.clips) == dict.fromkeys("12345", 3)
    assert found.tested == found.clips
    assert found.prompts("crackling_fire") == ("This is a sound of crackling fire.",)
    assert missing(found) == ["3-1-0.wav"]
    assert found.clips[0].path == tmp_path / "audio/1-0-0.wav"


def test_audio_in_another_format_is_the_same_clip(tmp_path: Path) -> None:
    layouts.esc50(tmp_path)
    path = tmp_path / "audio/1-0-0.wav"
    path.rename(path.with_suffix(".FLAC"))
    assert read("esc50", tmp_path).clips[0].path == path.with_suffix(".FLAC")


def test_esc_10_and_urban_sound_8k_are_read_alike(tmp_path: Path) -> None:
    found = read("esc10", layouts.esc10(tmp_path / "a"))
    assert (found.labels, sorted({clip.part for clip in found.clips})) == (("dog bark", "rain"), list("1234"))
    found = read("us8k", layouts.urban_sound_8k(tmp_path / "b"))
    assert (found.labels, len(found.clips)) == (("dog_bark", "siren"), 20)
    assert {clip.part for clip in found.clips} == {str(fold) for fold in range(1, 11)}
    assert found.clips[9].path == tmp_path / "b/audio/fold10/10-0-0-0.wav"


def test_esc_10_is_a_column_of_esc_50_too(tmp_path: Path) -> None:
    found = read("esc10", layouts.esc50(tmp_path))
    assert found.labels == ("crackling_fire", "dog")
    assert (found.key, found.title, len(found.clips), missing(found)) == ("esc10", "ESC-10", 10, [])


def test_an_empty_folder_of_gtzan_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "genres_original").mkdir()
    layouts.gtzan(tmp_path / "genres")
    assert len(missing(read("gtzan", tmp_path))) == 980


def test_gtzan_lists_all_thousand_clips_whether_there_or_not(tmp_path: Path) -> None:
    layouts.gtzan(tmp_path / "genres_original")
    found = read("gtzan", tmp_path)
    assert len(found.clips) == 1000
    assert len(missing(found)) == 980
    there = [clip for clip in found.clips if clip.path]
    assert [clip.part for clip in there] == [str(fold) for fold in range(10)] * 2
    assert {clip.path.suffix for clip in there if clip.path} == {".wav", ".au"}
    assert found.prompts("hiphop") == ("This is a hiphop song.",)
    in_captions = found.prompts("jazz", captions=True)
    assert in_captions[0] == "This is a jazz song."
    assert len(in_captions) == len(set(in_captions)) > 5
    # Neighbours are often by one artist, so they lie in one fold.
    assert {clip.part for clip in found.clips if clip.name in {"pop.00030", "pop.00039"}} == {"3"}


def test_vggsound_has_clips_by_both_ways_to_write_the_second(tmp_path: Path) -> None:
    found = read("vggsound", layouts.vggsound(tmp_path))
    assert found.labels == ("bee, wasp, etc. buzzing", "playing mandolin")
    assert missing(found) == []
    assert Counter(clip.part for clip in found.clips) == {"train": 20, "test": 4}
    assert [clip.part for clip in found.tested] == ["test"] * 4
    assert found.clips[0].name == "-v_00_000030"


def test_fsd50k_has_three_splits_and_several_labels(tmp_path: Path) -> None:
    layouts.fsd50k(tmp_path)
    (tmp_path / "FSD50K.eval_audio/104.wav").unlink()
    found = read("fsd50k", tmp_path)
    assert found.labels == ("Bark", "Male_speech_and_man_speaking", "Rain")
    assert Counter(clip.part for clip in found.clips) == {"train": 9, "validation": 3, "test": 6}
    assert found.clips[1].labels == ("Bark", "Male_speech_and_man_speaking")
    assert missing(found) == ["104"]
    assert found.prompts("Male_speech_and_man_speaking") == ("This is a sound of male speech and man speaking.",)


def test_audio_caps_has_one_clip_for_five_rows_under_any_of_its_names(tmp_path: Path) -> None:
    found = read("audiocaps", layouts.audio_caps(tmp_path))
    assert [clip.name for clip in found.clips] == ["_vid0_0", "_vid1_10", "_vid2_20", "_vid3_30"]
    assert missing(found) == []
    assert found.clips[2].captions == tuple(f"Sound 2, said {number}" for number in range(5))
    assert len({clip.path for clip in found.clips}) == 4


YOUTUBE_NAMES = ["30", "000030", "30000", "30.000", "30_40", "000030_000040", "30000_40000", "30.000_40.000"]


@pytest.mark.parametrize(
    "stem", [f"{sign}ID{rest}" for sign in ("", "Y") for rest in ("", *(f"_{n}" for n in YOUTUBE_NAMES))]
)
def test_an_excerpt_is_found_by_whatever_a_downloader_calls_it(tmp_path: Path, stem: str) -> None:
    path = layouts.sound(tmp_path / f"audio/{stem}.wav", 0, 0)
    layouts.table(
        tmp_path / "test.csv", [("audiocap_id", "youtube_id", "start_time", "caption"), (7, "ID", 30, "Rain.")]
    )
    layouts.table(tmp_path / "vggsound.csv", [("ID", 30, "rain", "test")])
    for key in ("audiocaps", "vggsound"):
        assert [clip.path for clip in read(key, tmp_path).clips] == [path]


def test_a_name_without_a_second_is_no_excerpts_where_there_are_two_of_the_video(tmp_path: Path) -> None:
    layouts.sound(tmp_path / "audio/ID.wav", 0, 0)
    rows = [(7, "ID", 30, "Rain."), (8, "ID", 50, "Hail.")]
    layouts.table(tmp_path / "test.csv", [("audiocap_id", "youtube_id", "start_time", "caption"), *rows])
    layouts.table(tmp_path / "vggsound.csv", [("ID", 30, "rain", "test"), ("ID", 50, "hail", "train")])
    assert missing(read("audiocaps", tmp_path)) == ["ID_30", "ID_50"]
    assert missing(read("vggsound", tmp_path)) == ["ID_000030", "ID_000050"]


def test_a_number_is_a_clip_of_audio_caps_in_its_own_folder_alone(tmp_path: Path) -> None:
    layouts.fsd50k(tmp_path)
    layouts.table(
        tmp_path / "test.csv", [("audiocap_id", "youtube_id", "start_time", "caption"), (102, "ID", 30, "Rain.")]
    )
    assert missing(read("audiocaps", tmp_path)) == ["ID_30"]
    own = layouts.sound(tmp_path / "test/102.wav", 0, 0)
    assert [clip.path for clip in read("audiocaps", tmp_path).clips] == [own]


def test_a_start_that_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    layouts.table(tmp_path / "test.csv", [("audiocap_id", "youtube_id", "start_time", "caption"), (7, "ID", "x", "a")])
    with pytest.raises(TrainingError, match="“x” at ID"):
        read("audiocaps", tmp_path)


def test_clotho_has_five_captions_a_clip(tmp_path: Path) -> None:
    layouts.clotho(tmp_path)
    (tmp_path / "evaluation/A clip, no. 1.wav").unlink()
    layouts.sound(tmp_path / "development/A clip, no. 1.wav", 1, 0)
    found = read("clotho", tmp_path)
    assert found.clips[0].captions == tuple(f"Kind 0, said {number}." for number in range(5))
    assert missing(found) == ["A clip, no. 1.wav"]  # that of another part is another clip


@pytest.mark.parametrize(
    ("key", "build", "table", "text", "reason"),
    [
        ("esc50", layouts.esc50, "meta/esc50.csv", "filename,fold\n", "has no column “category”"),
        ("esc50", layouts.esc50, "meta/esc50.csv", "", "has no column “filename”"),
        ("esc50", layouts.esc50, "meta/esc50.csv", "filename,fold,category\na.wav,1\n", "in the middle of row 2"),
        ("vggsound", layouts.vggsound, "vggsound.csv", "abc,3,dog\n", "has 3 columns in row 1, not 4"),
        ("vggsound", layouts.vggsound, "vggsound.csv", "abc,x,dog,train\n", "“x”, “train” at abc"),
        ("vggsound", layouts.vggsound, "vggsound.csv", "abc,3,dog,dev\n", "“3”, “dev” at abc"),
        ("fsd50k", layouts.fsd50k, "FSD50K.ground_truth/vocabulary.csv", "0,Bark,/m/0\n", "has no label Male_speech"),
        ("fsd50k", layouts.fsd50k, "FSD50K.ground_truth/dev.csv", "fname,labels,split\n7,Bark,test\n", "“test” at 7"),
        ("clotho", layouts.clotho, "clotho_captions_evaluation.csv", "file_name,caption_1\n", "no column “caption_2”"),
    ],
)
def test_a_damaged_table_is_one_sentence(
    tmp_path: Path, key: str, build: Callable[[Path], Path], table: str, text: str, reason: str
) -> None:
    (build(tmp_path) / table).write_text(text, "utf-8")
    with pytest.raises(TrainingError, match=reason) as caught:
        read(key, tmp_path)
    assert str(tmp_path / table) in str(caught.value)


def test_a_table_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    (layouts.esc50(tmp_path) / "meta/esc50.csv").write_bytes(b"filename\xff\xfe\n")
    with pytest.raises(TrainingError, match="it isn't CSV in UTF-8"):
        read("esc50", tmp_path)


def test_audio_is_found_behind_links_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    layouts.sound(tmp_path / "elsewhere/a.wav", 0, 0)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "audio")
    (tmp_path / "audio/a.json").write_text("{}")
    files = AudioFiles(tmp_path / "audio", tmp_path / "nowhere")
    assert files.find("b", "a") == tmp_path / "audio/link/a.wav"
    assert files.find("b") is None


def test_of_files_with_one_name_the_first_counts_but_sound_comes_before_video(tmp_path: Path) -> None:
    for name in ("audio/a.wav", "video/a.wav", "audio/b.webm", "audio/c.mp4", "video/b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = AudioFiles(tmp_path)
    assert [files.find(stem) for stem in "abc"] == [
        tmp_path / name for name in ("audio/a.wav", "video/b.wav", "audio/c.mp4")
    ]
