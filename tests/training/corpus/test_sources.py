"""Every kind of source on disk, told from what it is: real files, written by those whose formats they are."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset

from clapboard.errors import TrainingError
from tests.training.corpus.recorded import content, data_set, no_label_studio, record
from training.corpus.build import Plan, build
from training.corpus.pairs import Pair
from training.corpus.sources import Source, open_source
from training.corpus.stream import PairStream


def opened(given: object) -> Source:
    return open_source(str(given), no_label_studio)


def pairs(given: object) -> list[Pair]:
    return list(opened(given).pairs())


# Folders


def test_texts_beside_the_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.wav", "b.flac", "sub/c.ogg", "sub/d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").write_text("a dog barks\n\n it barks \n")
    (tmp_path / "b.json").write_text('{"caption": "rain", "tags": ["rain", "roof"], "group": "g", "license": "CC0"}')
    (tmp_path / "b.txt").write_text("it rains")
    (tmp_path / "sub/c.json").write_text('{"tags": "siren"}')
    (tmp_path / "notes.txt").write_text("no sound is called so")
    assert opened(tmp_path).kind == "folder"
    assert pairs(tmp_path) == [
        Pair("a.wav", tmp_path / "a.wav", ("a dog barks", "it barks")),
        Pair("b.flac", tmp_path / "b.flac", ("it rains", "rain"), ("rain", "roof"), "g", {"license": "CC0"}),
        Pair("sub/c.ogg", tmp_path / "sub/c.ogg", (), ("siren",)),
        Pair("sub/d.wav", tmp_path / "sub/d.wav"),  # where others have texts, a file without one has none
    ]


def test_without_texts_the_folders_name_is_the_tag(tmp_path: Path) -> None:
    for name in ("dog/1.wav", "dog/2.MP3", "rain/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [(pair.name, pair.tags) for pair in pairs(tmp_path)] == [
        ("dog/1.wav", ("dog",)),
        ("dog/2.MP3", ("dog",)),
        ("rain/1.wav", ("rain",)),
    ]
    assert [pair.tags for pair in pairs(tmp_path / "rain")] == [("rain",)]


def test_a_bad_text_beside_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(TrainingError, match=r"a\.json is not a JSON object: write one such as"):
        pairs(tmp_path)
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TrainingError, match=r"a\.txt can't be read: it isn't UTF-8 text"):
        pairs(tmp_path)


def test_files_beside_are_found_in_any_case_and_what_is_no_sound_is_not_taken(tmp_path: Path) -> None:
    for name in ("a.wav", "._a.wav", ".trash/b.wav"):
        record(tmp_path / name, 0)
    (tmp_path / "b.wav").mkdir()
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "a.TXT").write_text("a dog barks")
    assert [(pair.name, pair.captions) for pair in pairs(tmp_path)] == [("a.wav", ("a dog barks",)), ("gone.wav", ())]


def test_folders_behind_links_are_read_to_their_end_and_once(tmp_path: Path) -> None:
    record(tmp_path / "elsewhere/deep/deeper/a.wav", 0)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/rain").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "in")
    assert [(pair.name, pair.tags) for pair in pairs(tmp_path / "in")] == [("rain/deep/deeper/a.wav", ("deeper",))]


def test_a_folder_is_called_by_its_name_however_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "dog/a.wav", 0)
    (tmp_path / "dog/in").mkdir()
    monkeypatch.chdir(tmp_path / "dog/in")
    assert (opened("..").name, [pair.tags for pair in pairs("..")]) == ("dog", [("dog",)])


def test_names_and_texts_that_are_no_utf_8_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "in" / os.fsdecode(b"caf\xe9")
    folder.mkdir(parents=True)
    record(tmp_path / "0.wav", 0).rename(folder / os.fsdecode(b"\xe9.wav"))
    said = '{"caption": "a dog \\ud83d barks", "author": "\\udc00"}'
    record(tmp_path / "in/b.wav", 1).with_suffix(".json").write_text(said)
    (manifest,) = build([opened(tmp_path / "in")], tmp_path / "set", Plan())
    assert manifest.samples == 2
    heard = {sample.tags or sample.captions for sample in PairStream(tmp_path / "set", seed=0).epoch(0)}
    assert heard == {("caf\ufffd",), ("a dog \ufffd barks",)}
    (manifest,) = build([opened(folder)], tmp_path / "other", Plan())
    assert manifest.sources[0].given.endswith("/caf\ufffd")


# Hugging Face


def hugging_face_rows(**columns: Any) -> Any:
    """A data set as `datasets` makes it; audio is told from its bytes."""
    import datasets

    text = datasets.Value("string")
    kinds = datasets.ClassLabel(names=["dog", "rain"])
    features = {
        "audio": {"bytes": datasets.Value("binary"), "path": text},
        "caption": text,
        "label": kinds,
        "tags": datasets.List(kinds),
        "path": text,
    }
    chosen = datasets.Features({name: features[name] for name in columns})
    made = datasets.Dataset.from_dict(columns, features=chosen)
    return made.cast_column("audio", datasets.Audio()) if "audio" in columns else made


def test_a_hugging_face_data_set_with_captions_and_classes(tmp_path: Path) -> None:
    sounds = [{"bytes": content(0), "path": "x/a.wav"}, {"bytes": content(1), "path": None}]
    rows = hugging_face_rows(audio=sounds, caption=["a dog", None], label=[0, 1], tags=[[], [1, 0]])
    rows.save_to_disk(str(tmp_path / "set"))
    assert opened(tmp_path / "set").kind == "Hugging Face"
    assert pairs(tmp_path / "set") == [
        Pair("row 0 (a.wav)", content(0), ("a dog",), ("dog",)),
        Pair("row 1", content(1), (), ("rain", "dog")),
    ]


def test_of_several_splits_one_is_named(tmp_path: Path) -> None:
    import datasets

    one = hugging_face_rows(path=["a.wav"], caption=["a dog"])
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "both"))
    datasets.DatasetDict({"train": one}).save_to_disk(str(tmp_path / "single"))
    with pytest.raises(TrainingError, match=r"both has the splits train, test: choose one, such as .*both/train\."):
        pairs(tmp_path / "both")
    expected = [Pair("a.wav", tmp_path / "both/test/a.wav", ("a dog",))]
    assert pairs(tmp_path / "both/test") == expected
    assert [pair.captions for pair in pairs(tmp_path / "single")] == [("a dog",)]


def test_a_hugging_face_data_set_that_can_not_be_used_says_why(tmp_path: Path) -> None:
    hugging_face_rows(caption=["a"]).save_to_disk(str(tmp_path / "mute"))
    with pytest.raises(TrainingError, match="has no column of audio, only caption: name it audio"):
        pairs(tmp_path / "mute")
    hugging_face_rows(path=["a.wav"]).save_to_disk(str(tmp_path / "wordless"))
    with pytest.raises(TrainingError, match="has no column of texts, only path: name one captions or"):
        pairs(tmp_path / "wordless")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/dataset_info.json").write_text("{}")
    with pytest.raises(TrainingError, match="broken can't be read as a Hugging Face data set"):
        pairs(tmp_path / "broken")


@pytest.mark.parametrize(
    ("file", "damage"), [("state.json", b"{}"), ("*.arrow", b"\xff"), ("dataset_info.json", b"\xff")]
)
def test_a_damaged_hugging_face_data_set_is_named(tmp_path: Path, file: str, damage: bytes) -> None:
    hugging_face_rows(path=["a.wav"], caption=["a dog"]).save_to_disk(str(tmp_path / "set"))
    (found,) = (tmp_path / "set").glob(file)
    whole = found.read_bytes()
    found.write_bytes(damage if file.endswith("json") else whole[:200] + damage * (len(whole) - 200))
    with pytest.raises(TrainingError, match="set can't be read as a Hugging Face data set: save it again"):
        pairs(tmp_path / "set")


def test_a_column_of_bytes_is_of_files_and_one_of_numbers_is_refused(tmp_path: Path) -> None:
    import datasets

    def saved(name: str, sound: Any, feature: Any) -> Path:
        features = datasets.Features({"audio": feature, "caption": datasets.Value("string")})
        rows = datasets.Dataset.from_dict({"audio": [sound], "caption": ["a dog"]}, features=features)
        rows.save_to_disk(str(tmp_path / name))
        return tmp_path / name

    number = datasets.Value("float32")
    encoded = saved("bytes", content(0), datasets.Value("binary"))
    assert pairs(encoded) == [Pair("row 0", content(0), ("a dog",))]
    decoded = saved("floats", [0.0, 0.5], datasets.List(number))
    with pytest.raises(TrainingError, match=r"floats has no files in its column audio: cast it to datasets\.Audio"):
        pairs(decoded)
    sampled = {"array": datasets.List(number), "sampling_rate": datasets.Value("int32")}
    with pytest.raises(TrainingError, match=r"struct has no files in its column audio: cast it to datasets\.Audio"):
        pairs(saved("struct", {"array": [0.0], "sampling_rate": 48_000}, sampled))


# Tar shards


def shard(path: Path, *samples: dict[str, Any]) -> Path:
    with webdataset.TarWriter(str(path)) as tar:
        for sample in samples:
            tar.write(sample)
    return path


def test_webdataset_shards_named_by_braces(tmp_path: Path) -> None:
    shard(tmp_path / "s-0.tar", {"__key__": "x/a", "wav": content(0), "txt": "a dog\nit barks", "cls": 3})
    shard(tmp_path / "s-1.tar", {"__key__": "b", "flac": content(1), "json": {"text": "rain", "tags": ["rain"]}})
    expected = [
        Pair("s-0.tar/x/a", content(0), ("a dog", "it barks")),
        Pair("s-1.tar/b", content(1), ("rain",), ("rain",)),
    ]
    assert opened(tmp_path / "s-{0..1}.tar").kind == "tar shards"
    assert pairs(tmp_path / "s-{0..1}.tar") == expected
    assert pairs(tmp_path) == expected
    assert pairs(tmp_path / "s-1.tar") == expected[1:]
    with pytest.raises(TrainingError, match=r"1 of 3 shards don't exist, such as .*s-2\.tar"):
        opened(tmp_path / "s-{0..2}.tar")


def test_a_data_set_of_ours_is_a_source_too(tmp_path: Path) -> None:
    found = pairs(data_set(tmp_path, 3))
    assert sorted(pair.captions for pair in found) == [(f"sound number {seed}",) for seed in range(3)]
    assert {pair.about["source"] for pair in found} == {f"sounds: {seed}.wav" for seed in range(3)}


def test_both_splits_of_a_data_set_of_ours_are_a_source_too(tmp_path: Path) -> None:
    folder = data_set(tmp_path, 6, share=0.4)
    assert opened(folder).kind == "tar shards"
    assert sorted(pair.captions for pair in pairs(folder)) == [(f"sound number {seed}",) for seed in range(6)]


def test_a_folder_of_shards_and_sounds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "backup.tar").mkdir()
    record(tmp_path / "dog/a.wav", 0)
    assert opened(tmp_path).kind == "folder"
    shard(tmp_path / "s.tar", {"__key__": "a", "wav": content(0), "txt": "a dog"})
    with pytest.raises(TrainingError, match=r"holds both \.tar shards and sounds: give each kind a folder of its own"):
        opened(tmp_path)


def tar_of(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("take 1.2.wav", "take 1.3.wav"), r"take 1 in .*s\.tar has several sounds \(take 1\.2\.wav, take 1\.3\.wav\)"),
        (("a.wav", "a.flac"), r"a in .*s\.tar has several sounds \(a\.wav, a\.flac\)"),
        (("a.wav", "a.wav"), r"Shard .*s\.tar has a\.wav twice, ignoring case"),
        (("a.wav", "a.WAV"), r"Shard .*s\.tar has a\.WAV twice, ignoring case"),
    ],
)
def test_sounds_that_a_shard_does_not_tell_apart_are_named(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    tar_of(tmp_path / "s.tar", *((name, content(0)) for name in names))
    with pytest.raises(TrainingError, match=reason):
        pairs(tmp_path / "s.tar")


def test_samples_whose_files_are_not_adjacent_must_be_sorted(tmp_path: Path) -> None:
    members = [("a.wav", content(0)), ("b.wav", content(1)), ("a.txt", b"a dog"), ("b.txt", b"rain")]
    members += [("c.txt", b"wind"), ("c.wav", content(2))]
    source = opened(tar_of(tmp_path / "s.tar", *members))
    (manifest,) = build([source], tmp_path / "set", Plan())
    assert (manifest.samples, manifest.dropped) == (1, {"missing_text": 2, "unreadable": 2})
    assert {one.error.partition(" in ")[0] for one in manifest.unreadable} == {"a", "b"}
    assert all("has no sound beside its texts: sort the tar by name" in one.error for one in manifest.unreadable)


def test_a_shard_that_is_cut_between_two_members_is_damaged(tmp_path: Path) -> None:
    tar_of(tmp_path / "s.tar", ("a.wav", content(0)), ("a.txt", b"a dog"), ("b.wav", content(1)))
    with tarfile.open(tmp_path / "s.tar") as tar:
        end = tar.getmember("b.wav").offset
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:end])
    with pytest.raises(TrainingError, match=r"Shard .*s\.tar is damaged and can't be read to its end"):
        pairs(tmp_path / "s.tar")
    (tmp_path / "s.tar").write_bytes(gzip.compress(whole))
    assert [pair.captions for pair in pairs(tmp_path / "s.tar")] == [("a dog",), ()]


@pytest.mark.parametrize("num_bytes", [0, 700, 3_000])
def test_a_damaged_shard_is_named(tmp_path: Path, num_bytes: int) -> None:
    whole = shard(tmp_path / "s.tar", {"__key__": "a", "wav": content(0), "txt": "a dog"}).read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:num_bytes])
    with pytest.raises(TrainingError, match=r"Shard .*s\.tar is damaged and can't be read to its end"):
        pairs(tmp_path / "s.tar")


def test_a_shards_json_that_is_none_is_named(tmp_path: Path) -> None:
    shard(tmp_path / "s.tar", {"__key__": "a", "wav": content(0), "json": [1]})
    with pytest.raises(TrainingError, match=r"a in .*s\.tar has a \.json that isn't a JSON object"):
        pairs(tmp_path / "s.tar")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.json", r"a\.json is not a JSON object"),
        ("L.jsonl", "has invalid JSON in line 1"),
        ("s.tar", r"a \.json that isn't a JSON object"),
    ],
)
def test_json_that_is_too_deep_to_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    deep = 100_000 * "["
    if name == "s.tar":
        tar_of(tmp_path / name, ("a.wav", content(0)), ("a.json", deep.encode()))
    else:
        (tmp_path / name).write_text(deep)
        (tmp_path / "a.wav").touch()
    with pytest.raises(TrainingError, match=reason):
        pairs(tmp_path if name == "a.json" else tmp_path / name)


# Telling them apart


def test_tables_are_told_by_their_suffix(tmp_path: Path) -> None:
    record(tmp_path / "a.wav", 0)
    (tmp_path / "L.csv").write_text("path,caption\na.wav,a dog\n")
    (tmp_path / "L.jsonl").write_text(json.dumps({"path": "a.wav", "caption": "a dog"}))
    assert (opened(tmp_path / "L.csv").kind, opened(tmp_path / "L.jsonl").kind) == ("CSV", "JSONL")
    assert pairs(tmp_path / "L.csv") == pairs(tmp_path / "L.jsonl") == [Pair("a.wav", tmp_path / "a.wav", ("a dog",))]


@pytest.mark.parametrize(("name", "reason"), [("a.wav", "is none of these"), ("gone", "doesn't exist")])
def test_anything_else_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    record(tmp_path / "a.wav", 0)
    with pytest.raises(TrainingError, match=f"Source .*{name} {reason}: name a folder, a .csv, a .jsonl"):
        opened(tmp_path / name)


def test_label_studio_is_asked_for_projects_alone() -> None:
    with pytest.raises(TrainingError, match="nobody should have asked Label Studio"):
        opened("project:3")
