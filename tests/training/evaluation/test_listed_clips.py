from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clapboard.errors import TrainingError
from clapboard.labels.label_space import label_space_of
from clapboard.model.clap import ClapEncoder
from tests.support.audio_server import wav
from training.evaluation.listed_clips import ListedClip, embed_clips, read_clips


def written(folder: Path, text: str, *names: str) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(wav(seed))
    manifest = folder / "M.csv"
    manifest.write_text(text, "utf-8")
    return manifest


def test_paths_start_at_the_folder_of_the_manifest_or_are_absolute(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere.wav").write_bytes(wav(9))
    rows = f"path,label,group\nsub/a.wav,dog,g1\n{elsewhere},rain,g2\n"
    (tmp_path / "listed").mkdir()
    assert read_clips(written(tmp_path / "listed", rows, "sub/a.wav")) == [
        ListedClip(tmp_path / "listed/sub/a.wav", "dog", "g1"),
        ListedClip(elsewhere, "rain", "g2"),
    ]


def test_columns_come_in_any_order_with_others_and_a_byte_order_mark(tmp_path: Path) -> None:
    rows = "\ufefffold,group,remark,label,path\n2, g1 ,x,dog,a.wav\n,g2,,rain,b.wav\n"
    found = read_clips(written(tmp_path, rows, "a.wav", "b.wav"))
    assert [(clip.label, clip.group, clip.fold) for clip in found] == [("dog", "g1", "2"), ("rain", "g2", None)]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("path,label\na.wav,dog\n", "has no column “group”: its first line must name path, label and group"),
        ("", "has no column “path”"),
        ("path,label,group\n", "has no clips: list clips of at least two labels"),
        ("path,label,group\na.wav,dog,g\nb.wav,dog,h\n", "has only the label “dog”: list clips of at least two labels"),
        ("path,label,group\na.wav,dog,g\nb.wav,,h\n", "has no label in line 3: fill it in"),
        ("path,label,group\na.wav,dog\n", "has no group in line 2"),
        (
            "path,label,group\na.wav,dog,g\nc.wav,rain,h\n",
            "1 of the 2 files that manifest .* don't exist, .*c.wav: give",
        ),
    ],
)
def test_a_bad_manifest_is_one_sentence(tmp_path: Path, rows: str, reason: str) -> None:
    with pytest.raises(TrainingError, match=reason) as caught:
        read_clips(written(tmp_path, rows, "a.wav", "b.wav"))
    assert "M.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_manifest_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="can't be read: No such file"):
        read_clips(tmp_path / "nowhere.csv")
    with pytest.raises(TrainingError, match="can't be read: Is a directory"):
        read_clips(tmp_path)
    (binary := tmp_path / "binary.csv").write_bytes(b"path,label,group\n\xff\xfe\n")
    with pytest.raises(TrainingError, match="it isn't CSV in UTF-8"):
        read_clips(binary)


def test_clips_are_embedded_as_they_are_served_and_bad_ones_are_named(tmp_path: Path, tiny_clap: Path) -> None:
    encoder = ClapEncoder.load(str(tiny_clap), device="cpu", engine="torch")
    (tmp_path / "long.wav").write_bytes(wav(1, duration_s=25.0))
    (tmp_path / "short.wav").write_bytes(wav(2))
    (tmp_path / "text.wav").write_text("no audio")
    listed = [ListedClip(tmp_path / f"{name}.wav", name, name) for name in ("long", "text", "short")]
    heard: list[int] = []
    clips, unreadable = embed_clips(
        encoder, label_space_of(["long", "short", "text"]), listed, on_clip=lambda: heard.append(1)
    )
    assert [clip.label for clip in clips.clips] == ["long", "short"]
    assert [part.shape for part in clips.windows] == [(3, 32), (1, 32)]
    assert clips.labels.tolist() == [0, 1]
    assert clips.truth.tolist() == [[True, False, False], [False, True, False]]
    mean = clips.windows[0].mean(axis=0)
    assert np.allclose(clips.embeddings[0], mean / np.linalg.norm(mean))
    assert [one.path.name for one in unreadable] == ["text.wav"]
    assert unreadable[0].reason.startswith("text.wav")
    assert len(heard) == 3
    assert clips.take(np.array([1])).groups.tolist() == ["short"]
    assert clips.take(np.array([], int)).embeddings.shape == (0, 32)
