"""What is kept, joined and left out, and that the same sources and seed give the same bytes."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapboard.audio.windows import read
from clapboard.errors import TrainingError
from tests.support.recordings import encode
from tests.training.corpus.recorded import RATE_HZ, data_set, no_label_studio, noise, record
from training.corpus.build import Plan, build
from training.corpus.build_folder import LOCK
from training.corpus.decoding import PairDecoder
from training.corpus.filters import Reason, Rules
from training.corpus.manifest import Manifest, damages, data_sets_in, read_manifest
from training.corpus.pairs import Pair
from training.corpus.sources import Source, open_source

PLAN = Plan(samples_per_shard=3)


def made(folder: Path, *pairs: Pair, plan: Plan = PLAN, name: str = "given") -> list[Manifest]:
    return build([Source(name, name, "test", lambda: iter(pairs))], folder, plan)


def texts(folder: Path) -> list[dict[str, object]]:
    """The JSON of every sample, in the shards' order."""
    found = []
    for shard in sorted(folder.glob("**/*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    content = tar.extractfile(member)
                    assert content is not None
                    found.append(json.load(content))
    return found


def sounds(folder: Path, num: int) -> list[Pair]:
    return [Pair(f"{i}", record(folder / f"{i}.wav", i), (f"a dog barks {i} times",)) for i in range(num)]


# What a sample is


def test_a_sample_is_its_sound_in_flac_and_all_that_is_said_of_it(tmp_path: Path) -> None:
    sound = record(tmp_path / "a.wav", 7)
    pair = Pair("x/a.wav", sound, ("a dog  barks", "wind"), ("dog",), "garden", {"licence": "CC0", "author": "é"})
    (manifest,) = made(tmp_path / "set", pair, name="clips.csv")
    with tarfile.open(tmp_path / "set/shard-000000.tar") as tar:
        flac, said = tar.getmembers()
        tar.extractall(tmp_path, filter="data")
    assert flac.name.removesuffix(".flac") == said.name.removesuffix(".json")
    assert (flac.mtime, flac.uid, flac.gid, flac.uname, flac.mode) == (0, 0, 0, "", 0o644)
    info = soundfile.info(tmp_path / flac.name)
    assert (info.samplerate, info.channels, info.subtype) == (48_000, 1, "PCM_16")
    assert np.array_equal(read(tmp_path / flac.name), noise(7))
    (found,) = texts(tmp_path / "set")
    assert found.pop("sha256").startswith(flac.name.removesuffix(".flac"))  # type: ignore[attr-defined]
    assert found == {
        "captions": ["a dog barks", "wind"],
        "tags": ["dog"],
        "group": "garden",
        "duration_s": 0.4,
        "source": "clips.csv: x/a.wav",
        "licence": "CC0",
        "author": "é",
    }
    assert (manifest.samples, manifest.captions, manifest.tags, manifest.duration_s) == (1, 2, 1, 0.4)


def test_a_source_of_its_own_and_no_group_are_what_the_pair_says(tmp_path: Path) -> None:
    made(tmp_path / "set", Pair("a", record(tmp_path / "a.wav", 1), (), ("dog",), about={"source": "freesound 7"}))
    (found,) = texts(tmp_path / "set")
    assert found["source"] == "freesound 7"
    assert found["group"] == str(found["sha256"])[:16]


# What is left out


def rejected(folder: Path) -> Iterator[tuple[Pair, Reason]]:
    """A pair for each reason to leave it out."""
    good = record(folder / "good.wav", 100)
    dog = ("a dog barks",)
    time_s = np.arange(RATE_HZ) / RATE_HZ
    soundfile.write(folder / "silent.wav", np.zeros(RATE_HZ), RATE_HZ)
    soundfile.write(folder / "loud.wav", np.clip(4 * np.sin(2 * np.pi * 440 * time_s), -1, 1), RATE_HZ)
    (folder / "broken.wav").write_bytes(b"RIFF no sound at all")
    yield Pair("no text", good), Reason.MISSING_TEXT
    yield Pair("few", good, ("dog",)), Reason.FEW_WORDS
    yield Pair("many", good, ("a dog barks " * 4,)), Reason.MANY_WORDS
    yield Pair("German", good, ("ein Hund bellt zweimal",)), Reason.LANGUAGE
    yield Pair("text", folder / "broken.wav", dog), Reason.UNREADABLE
    yield Pair("missing", folder / "missing.wav", dog), Reason.UNREADABLE
    yield Pair("empty", b"", dog), Reason.UNREADABLE
    yield Pair("long name", folder / (300 * "x" + ".wav"), dog), Reason.UNREADABLE
    yield Pair("no name", folder / "a\0.wav", dog), Reason.UNREADABLE
    yield Pair("half a name", folder / "\ud83d.wav", dog), Reason.UNREADABLE
    yield Pair("short", record(folder / "short.wav", 101, 0.1), dog), Reason.SHORT
    yield Pair("long", record(folder / "long.wav", 102, 2.5), dog), Reason.LONG
    yield Pair("silent", folder / "silent.wav", dog), Reason.QUIET
    yield Pair("loud", folder / "loud.wav", dog), Reason.CLIPPED
    yield Pair("bulk", good, dog, left_out=Reason.BULK), Reason.BULK


def test_each_pair_that_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    pairs, expected = zip(*rejected(tmp_path), strict=True)
    rules = Rules(max_s=2.0, min_words=2, max_words=9)
    (manifest,) = made(tmp_path / "set", *pairs, *sounds(tmp_path, 2), plan=Plan(rules))
    reasons = [str(reason) for reason in expected]
    assert manifest.dropped == {reason: reasons.count(reason) for reason in reasons}
    assert (manifest.found, manifest.samples) == (len(pairs) + 2, 2)
    captions = {"too_few_words": 1, "too_many_words": 1, "other_language": 1}
    assert manifest.dropped_captions == captions
    assert [(one.name, one.error.partition(":")[0]) for one in manifest.unreadable] == [
        ("given: text", "text is no audio that can be decoded"),
        ("given: missing", "missing doesn't exist, or isn't a file"),
        ("given: empty", "empty is no audio that can be decoded"),
        ("given: long name", "long name can't be read"),
        ("given: no name", "no name doesn't exist, or isn't a file"),
        ("given: half a name", "half a name doesn't exist, or isn't a file"),
    ]


def test_a_full_scale_tone_is_not_clipped(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    soundfile.write(tmp_path / "tone.wav", tone, RATE_HZ)
    assert made(tmp_path / "set", Pair("tone", tmp_path / "tone.wav", ("a tone",)))[0].samples == 1


def test_a_caption_that_is_left_out_takes_neither_the_others_nor_the_tags_along(tmp_path: Path) -> None:
    captions = ("ein Hund bellt zweimal", "a dog barks twice")
    first = Pair("a", record(tmp_path / "a.wav", 1), captions, ("Hund",))
    second = Pair("b", record(tmp_path / "b.wav", 2), captions[:1], ("Regen",))
    (manifest,) = made(tmp_path / "set", first, second)
    assert {(*one["captions"], *one["tags"]) for one in texts(tmp_path / "set")} == {  # type: ignore[misc]
        ("a dog barks twice", "Hund"),
        ("Regen",),
    }
    assert (manifest.dropped, manifest.dropped_captions) == ({}, {"other_language": 2})


def test_tags_without_a_word_are_left_out_and_counted(tmp_path: Path) -> None:
    tags = ("dog", "(unknown)", "(Other)", "()", "/", ",", "?", "&", "\u200b")
    first = Pair("a", record(tmp_path / "a.wav", 1), (), tags)
    second = Pair("b", record(tmp_path / "b.wav", 2), (), ("-", "'"))
    (manifest,) = made(tmp_path / "set", first, second)
    assert [one["tags"] for one in texts(tmp_path / "set")] == [["dog"]]
    assert (manifest.dropped, manifest.dropped_captions) == ({"tag_without_word": 1}, {"tag_without_word": 10})


def test_tags_that_differ_in_spelling_alone_are_one(tmp_path: Path) -> None:
    pair = Pair("a", record(tmp_path / "a.wav", 1), (), ("Dog", "dog", "Car_Horn", "caf\u00e9"))
    other = Pair("b", record(tmp_path / "a.flac", 1), (), ("DOG", "car horn", "cafe\u0301"))
    made(tmp_path / "set", pair, other)
    assert [one["tags"] for one in texts(tmp_path / "set")] == [["Dog", "Car_Horn", "caf\u00e9"]]


def test_any_language_may_be_taken(tmp_path: Path) -> None:
    pair = Pair("a", record(tmp_path / "a.wav", 1), ("ein Hund bellt zweimal",))
    assert made(tmp_path / "set", pair, plan=Plan(Rules(languages=())))[0].dropped_captions == {}


def test_what_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    pair = Pair("a", record(tmp_path / "a.wav", 1, 60.0), ("a dog",))
    decoder = PairDecoder(Rules(max_s=1.0), lambda _: True, tmp_path)
    assert decoder._pcm(pair).size < 20 * RATE_HZ  # sound comes from the decoders ten seconds at a time


# Duplicates


def test_one_sound_in_several_files_is_one_sample_with_all_texts(tmp_path: Path) -> None:
    wav, flac = record(tmp_path / "a.wav", 1), record(tmp_path / "b.flac", 1)
    other = encode(tmp_path / "c.opus", noise(2), RATE_HZ, "libopus")
    pairs = [
        Pair("wav", wav, ("a dog barks",), ("dog",)),
        Pair("flac", flac, ("it barks", "a dog barks"), ("animal",)),
        Pair("other", other, ("rain",)),
    ]
    (manifest,) = made(tmp_path / "set", *pairs)
    joined, _ = sorted(texts(tmp_path / "set"), key=lambda one: -len(one["captions"]))  # type: ignore[arg-type]
    assert (joined["captions"], joined["tags"]) == (["a dog barks", "it barks"], ["dog", "animal"])
    assert joined["source"] == "given: wav"
    assert (manifest.samples, manifest.dropped) == (2, {"duplicate": 1})


def test_a_sound_that_is_held_out_is_left_out_wherever_it_comes_from(tmp_path: Path) -> None:
    sound = record(tmp_path / "a.wav", 1)
    aside = Pair("aside", record(tmp_path / "a.flac", 1), ("a dog",), left_out=Reason.HELD_OUT)
    gone = Pair("gone", tmp_path / "gone.wav", ("a dog",), left_out=Reason.HELD_OUT)
    others = Pair("before", sound, ("a dog",)), Pair("kept", record(tmp_path / "b.wav", 2), ("rain",))
    (manifest,) = made(tmp_path / "set", others[0], aside, gone, others[1])
    assert [one["source"] for one in texts(tmp_path / "set")] == ["given: kept"]
    assert (manifest.samples, manifest.dropped, manifest.unreadable) == (1, {"set_aside": 3}, ())


# Order, split and bytes


def test_two_builds_are_equal_to_the_byte_whatever_the_threads_and_the_order_of_files(tmp_path: Path) -> None:
    pairs = sounds(tmp_path, 10)
    made(tmp_path / "one", *pairs, plan=replace(PLAN, threads=1))
    made(tmp_path / "two", *pairs[::-1], plan=replace(PLAN, threads=3))
    made(tmp_path / "other", *pairs, plan=replace(PLAN, seed=1))
    bytes_of = {
        name: [shard.read_bytes() for shard in sorted((tmp_path / name).glob("*.tar"))]
        for name in ("one", "two", "other")
    }
    assert len(bytes_of["one"]) == 4
    assert bytes_of["one"] == bytes_of["two"]
    assert bytes_of["one"] != bytes_of["other"]
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()
    order = [one["source"] for one in texts(tmp_path / "one")]
    assert sorted(order) == sorted(one["source"] for one in texts(tmp_path / "other"))  # type: ignore[type-var]
    assert order != [one["source"] for one in texts(tmp_path / "other")]
    assert order != sorted(order)  # type: ignore[type-var]


def test_whole_groups_are_drawn_for_validation_also_those_that_share_a_sound(tmp_path: Path) -> None:
    pairs = [replace(pair, group=f"g{number // 2}") for number, pair in enumerate(sounds(tmp_path, 40))]
    twice = Pair("again", record(tmp_path / "0.flac", 0), ("again",), group="g7")  # g0's sound: g0 and g7 are one
    plan = replace(PLAN, validation_share=0.25)
    train, validation = made(tmp_path / "set", *pairs, twice, plan=plan)
    assert (train.split, train.samples, validation.split, validation.samples) == ("train", 30, "validation", 10)
    groups = [{one["group"] for one in texts(tmp_path / "set" / split)} for split in ("train", "validation")]
    assert not groups[0] & groups[1]
    assert len(groups[0] | groups[1]) == 19
    assert data_sets_in(tmp_path / "set") == [tmp_path / "set/train", tmp_path / "set/validation"]
    with pytest.raises(
        TrainingError, match=r"isn't a complete data set: name one of its splits, .*/train or .*/validation"
    ):
        read_manifest(tmp_path / "set")


def test_a_split_that_would_be_empty_is_refused(tmp_path: Path) -> None:
    pairs = [replace(pair, group="all") for pair in sounds(tmp_path, 4)]
    with pytest.raises(
        TrainingError, match="leaves a split empty: there are 4 samples in 1 group, and groups stay together"
    ):
        made(tmp_path / "set", *pairs, plan=replace(PLAN, validation_share=0.5))
    assert not (tmp_path / "set").exists()


# The manifest, and what is interrupted


def test_the_manifest_tells_all_and_finds_every_damage(tmp_path: Path) -> None:
    pairs = sounds(tmp_path, 7)
    made(tmp_path / "set", *pairs)
    manifest = read_manifest(tmp_path / "set")
    assert [(shard.name, shard.samples) for shard in manifest.shards] == [
        ("shard-000000.tar", 3),
        ("shard-000001.tar", 3),
        ("shard-000002.tar", 1),
    ]
    assert manifest.settings["seed"] == 0
    assert manifest.settings["languages"] == ["en"]
    assert [(source.kind, source.pairs) for source in manifest.sources] == [("test", 7)]
    assert damages(tmp_path / "set", manifest) == {}
    content = bytearray((tmp_path / "set/shard-000000.tar").read_bytes())
    content[2000] ^= 1
    (tmp_path / "set/shard-000000.tar").write_bytes(content)
    (tmp_path / "set/shard-000001.tar").write_bytes(content[:-1])
    (tmp_path / "set/shard-000002.tar").unlink()
    found = damages(tmp_path / "set", manifest)
    assert found["shard-000000.tar"] == "has other content than was written"
    assert found["shard-000001.tar"].startswith("is damaged: it has ")
    assert found["shard-000002.tar"] == "is missing"


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"has no manifest\.json, so it isn't a complete data set: make one with"):
        data_sets_in(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "another"}')
    with pytest.raises(TrainingError, match="can't be read as a data set's manifest: build the data set again"):
        read_manifest(tmp_path)


def test_a_build_that_breaks_off_leaves_nothing_and_is_run_again(tmp_path: Path) -> None:
    def broken() -> Iterator[Pair]:
        yield sounds(tmp_path, 1)[0]
        raise TrainingError("the table has a bad line")

    with pytest.raises(TrainingError, match="bad line"):
        build([Source("b", "b", "test", broken)], tmp_path / "set", PLAN)
    assert [path.name for path in tmp_path.iterdir()] == ["0.wav"]
    killed = tmp_path / "set.building"  # as kill -9 leaves it
    (killed / "sounds").mkdir(parents=True)
    (killed / "shard-000009.tar").write_bytes(b"half")
    (killed / LOCK).touch()
    made(tmp_path / "set", *sounds(tmp_path, 1))
    assert not killed.exists()
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["manifest.json", "shard-000000.tar"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    folder = data_set(tmp_path, 2)
    with pytest.raises(TrainingError, match="holds a data set already: name another folder, or delete it"):
        made(folder, *sounds(tmp_path, 1))
    (folder / "manifest.json").unlink()
    with pytest.raises(TrainingError, match="isn't an empty folder: name a new one"):
        made(folder, *sounds(tmp_path, 1))
    shutil.rmtree(folder)
    folder.mkdir()
    made(folder, *sounds(tmp_path, 1))
    with pytest.raises(TrainingError, match="can't be written"):
        made(tmp_path / "0.wav/set", *sounds(tmp_path, 1))


def test_a_folder_that_no_build_has_made_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "set.building").mkdir()
    (tmp_path / "set.building/thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"set\.building exists, but no build has made it: move it"):
        made(tmp_path / "set", *sounds(tmp_path, 1))
    assert (tmp_path / "set.building/thesis.txt").read_text() == "mine"


def test_two_builds_of_one_folder_leave_each_other_alone(tmp_path: Path) -> None:
    pairs = sounds(tmp_path, 2)

    def meanwhile() -> Iterator[Pair]:
        yield pairs[0]
        with pytest.raises(TrainingError, match=r"set is being built already: wait for it, or name another folder"):
            made(tmp_path / "set", *pairs)
        yield pairs[1]

    (manifest,) = build([Source("b", "b", "test", meanwhile)], tmp_path / "set", PLAN)
    assert manifest.samples == 2
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["manifest.json", "shard-000000.tar"]


def test_a_link_to_an_empty_folder_is_filled_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "disk")
    made(tmp_path / "set", *sounds(tmp_path, 1))
    assert (tmp_path / "set").is_symlink()
    assert (tmp_path / "disk/manifest.json").is_file()


def test_a_place_that_can_not_be_replaced_is_refused_before_anything_is_heard() -> None:
    with pytest.raises(TrainingError, match="/ is a mount point, which can't be replaced: name a new folder"):
        build([Source("b", "b", "test", lambda: pytest.fail("nothing is heard"))], Path("/"), PLAN)


def test_a_data_set_that_can_not_be_put_in_place_is_kept(tmp_path: Path) -> None:
    def obstructed() -> Iterator[Pair]:
        yield sounds(tmp_path, 1)[0]
        (tmp_path / "set/theirs").mkdir(parents=True)

    with pytest.raises(
        TrainingError, match=r"set\.building is a complete data set, but can't be renamed to .*set \(.*rename it"
    ):
        build([Source("b", "b", "test", obstructed)], tmp_path / "set", PLAN)
    assert sorted(path.name for path in (tmp_path / "set.building").iterdir()) == ["manifest.json", "shard-000000.tar"]


@pytest.mark.parametrize("place", ["in/set", "in/deep/set", "link/set"])
def test_a_data_set_is_not_written_into_its_own_source(tmp_path: Path, place: str) -> None:
    record(tmp_path / "in/dog/0.wav", 0)
    (tmp_path / "link").symlink_to("in")
    source = open_source(str(tmp_path / "in"), no_label_studio)
    with pytest.raises(TrainingError, match=r"set lies in the source .*/in: name a folder outside it"):
        build([source], tmp_path / place, PLAN)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["dog"]


def test_where_nothing_is_left_the_reasons_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Nothing is left of 1 pair \(1 missing_text\)"):
        made(tmp_path / "set", Pair("a", record(tmp_path / "a.wav", 1)))
    unreadable = [Pair("b", b"no sound", ("a dog",)), Pair("c", b"nor here", ("a dog",))]
    with pytest.raises(
        TrainingError, match=r"\(2 unreadable\)\. The first that can't be read: given: b: b is no audio"
    ):
        made(tmp_path / "set", *unreadable)
    with pytest.raises(TrainingError, match=r"Nothing is left of 0 pairs \(the sources are empty\)"):
        made(tmp_path / "set")
    with pytest.raises(TrainingError, match="The minimum length is above the maximum"):
        Rules(min_s=2.0, max_s=1.0)


@pytest.mark.parametrize("bound", [{"max_s": np.inf}, {"min_lufs": np.nan}, {"max_clipped_share": np.nan}])
def test_a_bound_that_is_no_number_is_refused(bound: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="Limits of length, loudness and clipping must be finite numbers"):
        Rules(**bound)  # type: ignore[arg-type]


def test_several_sources_are_one_data_set(tmp_path: Path) -> None:
    record(tmp_path / "dog/0.wav", 0)
    record(tmp_path / "1.wav", 1)
    (tmp_path / "L.csv").write_text("path,caption\n1.wav,rain falls\n")
    sources = [open_source(str(tmp_path / name), no_label_studio) for name in ("dog", "L.csv")]
    (manifest,) = build(sources, tmp_path / "set", PLAN)
    assert [(source.kind, source.pairs) for source in manifest.sources] == [("folder", 1), ("CSV", 1)]
    assert {one["source"] for one in texts(tmp_path / "set")} == {"dog: 0.wav", "L.csv: 1.wav"}
