"""Data sets as `datasets` loads them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import EventRow
from clapboard.event_tables.formats import read_events
from clapboard.event_tables.hugging_face import Recording, write_hugging_face

ROWS = [
    EventRow("x/a.wav", 0.25, 0.5, "dog", 0.5, "Ann", "v1", "CC0", "field", 1, 100.0, 2000.0),
    EventRow("x/a.wav", 0.0, 1.0, "windy", None, "Ann", "", "CC0", "field", whole=True),
]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "in.wav", np.zeros(8000, np.float32), 8000)
    return tmp_path / "in.wav"


def test_datasets_loads_what_is_written(tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    for name in ("torchcodec", "torchcodec.encoders"):  # datasets imports it for any audio, and calls it for none here
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["torchcodec.encoders"], "AudioEncoder", None, raising=False)
    recordings = [
        Recording("x/a.wav", audio, ROWS),
        Recording("y/a.wav", audio, [], "test"),
        Recording("../../b.wav", audio, [EventRow("../../b.wav", 0.0, 1.0, "=cmd", licence="]]\n---")], "test"),
    ]
    assert write_hugging_face(tmp_path / "out", recordings, title="Yard `<b>") == 3
    datasets.disable_progress_bars()
    loaded: Any = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded) == ["test", "train"]
    train = loaded["train"].cast_column("audio", datasets.Audio(decode=False))[0]
    assert Path(train["audio"]["path"]).name == "a.wav"
    assert (train["events"][0]["label"], train["events"][0]["start_s"]) == ("dog", 0.25)
    assert (train["licence"], train["labels"][0]["label"]) == ("CC0", "windy")
    assert sorted(loaded["test"].remove_columns("audio")["recording"]) == ["../../b.wav", "y/a.wav"]
    card = (tmp_path / "out/README.md").read_text()
    assert "- `CC0`: 1 recording\n" in card
    assert card.count("\n---") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav", "out", "cache"}
    assert [row for row in read_events(tmp_path / "out") if row.recording == "x/a.wav"] == ROWS


def test_a_folder_with_files_is_left_alone(tmp_path: Path, audio: Path) -> None:
    with pytest.raises(EventTableError, match="has files in it: name a new or empty folder"):
        write_hugging_face(tmp_path, [], title="x")
    with pytest.raises(EventTableError, match=r"has no metadata\.parquet"):
        list(read_events(tmp_path))
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(EventTableError, match=r"metadata\.parquet can't be read"):
        list(read_events(tmp_path))
