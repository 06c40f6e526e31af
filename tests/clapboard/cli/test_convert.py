"""`clapboard convert`: a LAION checkpoint in, a folder to serve out."""

from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.errors import ModelError, SettingsError
from tests.clapboard.cli.conftest import Clapboard, document, lines
from tests.clapboard.model.laion.originals import original_state, save_original
from tests.support.audio_server import wav

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    state, tokenizer = original_state("cnn14", "bert")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return save_original(tmp_path / "original.pt", state)


def test_what_was_converted_is_told_and_can_be_used(original: Path, clapboard: Clapboard) -> None:
    done = clapboard("convert", str(original), "out", "--tokenizer", "tokenizer", "--json")
    assert done.exit_code == 0
    (told,) = lines(done)
    assert (told["model"], told["audio"], told["text"], told["is_fused"], told["dim"]) == (
        "out",
        "cnn14",
        "bert",
        False,
        32,
    )
    assert max(told["audio_distance"], told["text_distance"]) <= 1e-4
    assert "audio_branch.fc_audioset.weight" in told["unneeded"]
    wav_file = original.parent / "clip.wav"
    wav_file.write_bytes(wav(1))
    used = clapboard("predict", "clip.wav", "--labels", "dog, rain", "--model", "out", "--json", engine="torch")
    assert used.exit_code == 0
    assert document(used)[0]["scores"].keys() == {"dog", "rain"}


def test_people_get_a_table(original: Path, clapboard: Clapboard) -> None:
    done = clapboard("convert", str(original), "out", "--tokenizer", "tokenizer")
    assert done.exit_code == 0
    assert "cnn14" in done.stdout
    assert "off by" in done.stdout


def test_errors_are_sentences(original: Path, clapboard: Clapboard) -> None:
    missing = clapboard("convert", "missing.pt", "out")
    assert isinstance(missing.exception, ModelError)
    (original.parent / "out").mkdir()
    there = clapboard("convert", str(original), "out", "--tokenizer", "tokenizer")
    assert isinstance(there.exception, SettingsError)
