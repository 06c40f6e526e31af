"""Pairs of CSV and JSONL files, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.errors import TrainingError
from training.corpus.listed_pairs import csv_pairs, jsonl_pairs
from training.corpus.pairs import Pair


def written(folder: Path, text: str, name: str = "M.csv") -> Path:
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def test_a_csv_names_paths_from_its_own_folder_captions_tags_and_groups(tmp_path: Path) -> None:
    header = "\ufeffpath, captions, tags, group, licence\n"
    rows = header + 'sub/a.wav,a dog barks | it  barks,"dog, animal",g1,CC0\n/b.wav,,,g2,\n'
    assert list(csv_pairs(written(tmp_path, rows))) == [
        Pair(
            "sub/a.wav",
            tmp_path / "sub/a.wav",
            ("a dog barks", "it barks"),
            ("dog", "animal"),
            "g1",
            {"licence": "CC0"},
        ),
        Pair("/b.wav", Path("/b.wav"), (), (), "g2"),
    ]


def test_rows_of_one_file_are_one_pair(tmp_path: Path) -> None:
    rows = "path,caption,label\na.wav,a dog,dog\nb.wav,rain,rain\na.wav,a bark,dog\na.wav,a dog,animal\n"
    first, second = csv_pairs(written(tmp_path, rows))
    assert (first.name, first.captions, first.tags) == ("a.wav", ("a dog", "a bark"), ("dog", "animal"))
    assert second.name == "b.wav"


def test_a_jsonl_has_an_object_a_line(tmp_path: Path) -> None:
    rows = '{"path": "a.wav", "caption": "a dog", "tags": ["x, y"], "group": 7}\n\n'
    rows += '{"path": "b.wav", "captions": ["r", "s"]}\n'
    first, second = jsonl_pairs(written(tmp_path, rows, "M.jsonl"))
    assert (first.audio, first.captions, first.tags, first.group) == (tmp_path / "a.wav", ("a dog",), ("x, y",), "7")
    assert second.captions == ("r", "s")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "has no column “path”: its first line must name the columns"),
        ("path,group\na.wav,g\n", "has no column of texts: name one of them captions or caption or text or tags"),
        ("path,caption\na.wav,a dog, loud\n", "has more cells than columns in line 2: quote its commas"),
        (
            'path,caption\na.wav,a dog\nb.wav,"rain\nc.wav,wind\nd.wav,sea\n',
            r"isn't valid CSV from line 3 on \(unexpected end",
        ),
        (
            'path,caption\na.wav,"a dog" barks\n',
            r"isn't valid CSV from line 2 on \(',' expected after '\"'\): check its",
        ),
        ("path,caption\na.wav," + 150_000 * "x", r"isn't valid CSV from line 2 on \(field larger than field limit"),
        ("path,caption,tags,caption\na.wav,a dog,,rain\n", "has the column “caption” twice: give each column a name"),
        ("path,caption\na.wav,a dog\n,rain\n", "has no path in line 3: name the audio file there"),
    ],
)
def test_a_bad_csv_is_one_sentence_with_its_line(tmp_path: Path, rows: str, reason: str) -> None:
    with pytest.raises(TrainingError, match=f"M.csv {reason}"):
        list(csv_pairs(written(tmp_path, rows)))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ('{"path": "a.wav"}\nnothing\n', "M.jsonl has invalid JSON in line 2: "),
        ('["a.wav"]\n', "M.jsonl has no JSON object in line 1: write one such as"),
        ('{"caption": "a dog"}\n', "M.jsonl has no path in line 1"),
        ('{"path": "a.wav", "caption": {"en": "a dog"}}\n', "M.jsonl, line 1, has a “caption” that isn't a text"),
        ('{"path": "a.wav", "tags": ["dog", null]}\n', "M.jsonl, line 1, has a “tags” that isn't a text"),
    ],
)
def test_a_bad_jsonl_is_one_sentence_with_its_line(tmp_path: Path, rows: str, reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        list(jsonl_pairs(written(tmp_path, rows, "M.jsonl")))


def test_what_is_no_text_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "M.csv").write_bytes(b"path,caption\na.wav,\xff\xfe\n")
    with pytest.raises(TrainingError, match=r"M\.csv can't be read: it isn't CSV in UTF-8"):
        list(csv_pairs(tmp_path / "M.csv"))
    with pytest.raises(TrainingError, match=r"N\.jsonl can't be read: No such file"):
        list(jsonl_pairs(tmp_path / "N.jsonl"))
