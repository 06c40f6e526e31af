"""What a checkpoint learnt about frames is read with it, and is part of its version."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clapboard.errors import ModelError
from clapboard.model.checkpoints import fingerprint
from clapboard.model.clap import ClapEncoder
from clapboard.model.frame_scores import FRAME_SCORES_FILE, FrameScores
from training.checkpoint import write_candidate

SCORES = FrameScores(9.5, np.linspace(-1, 1, 32, dtype=np.float32), -2.25)


@pytest.fixture
def copy(tiny_clap: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, whose embeddings have a length of 32."""
    return Path(shutil.copytree(tiny_clap, tmp_path / "copy"))


def test_a_checkpoint_has_the_frame_scores_of_its_folder_and_another_version_with_them(copy: Path) -> None:
    without = ClapEncoder.load(str(copy), device="cpu", engine="torch")
    SCORES.write(copy)
    encoder = ClapEncoder.load(str(copy), device="cpu", engine="torch")
    assert without.frame_scores is None
    assert encoder.frame_scores is not None
    assert (encoder.frame_scores.scale, encoder.frame_scores.bias) == (9.5, -2.25)
    np.testing.assert_array_equal(encoder.frame_scores.text_weight, SCORES.text_weight)
    assert without.identity.version != encoder.identity.version == fingerprint(copy)


def test_a_finetuned_checkpoint_keeps_the_frame_scores_of_the_one_it_came_from(copy: Path, tmp_path: Path) -> None:
    SCORES.write(copy)
    write_candidate(tmp_path / "tuned", ClapEncoder.load(str(copy), device="cpu", engine="torch"), {}, {})
    kept = FrameScores.read(tmp_path / "tuned", "tuned", 32)
    assert kept is not None
    np.testing.assert_array_equal(kept.text_weight, SCORES.text_weight)


def test_probabilities_follow_the_formula_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    frames, texts = (rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in _rows(rng))
    found = SCORES.probabilities(frames, texts)
    logits = 9.5 * np.einsum("ftd,ld->ftl", frames, texts) + texts @ SCORES.text_weight - 2.25
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert (found.shape, found.dtype) == ((2, 5, 3), np.float32)
    extreme = FrameScores(1e6, SCORES.text_weight, 0.0).probabilities(frames, texts)
    assert set(np.unique(extreme)) <= {0.0, 1.0}


def _rows(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 5, 32), (3, 32))]


@pytest.mark.parametrize(
    "values",
    [
        None,
        {"scale": 1.0, "bias": 0.0},
        {"scale": 1.0, "bias": 0.0, "text_weight": [0.0] * 31},
        {"scale": float("nan"), "bias": 0.0, "text_weight": [0.0] * 32},
        {"scale": [1.0, 2.0], "bias": 0.0, "text_weight": [0.0] * 32},
    ],
)
def test_a_damaged_file_is_told_in_one_sentence(tmp_path: Path, values: dict[str, object] | None) -> None:
    if values is None:
        (tmp_path / FRAME_SCORES_FILE).write_bytes(b"none")
    else:
        save_file({name: np.array(value, np.float32) for name, value in values.items()}, tmp_path / FRAME_SCORES_FILE)
    with pytest.raises(ModelError, match=f"^Model m can't be read: its {FRAME_SCORES_FILE} [^\n]*\\.$"):
        FrameScores.read(tmp_path, "m", 32)
