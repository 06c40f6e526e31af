from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.errors import ModelError
from clapboard.model.load import load_encoder
from clapboard.settings import Settings


def test_a_checkpoint_below_the_state_folder_is_loaded_under_its_short_name(tiny_clap: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "7"
    folder.mkdir(parents=True)
    (folder / "mini-tuned-1").symlink_to(tiny_clap)
    settings = Settings(MODEL_DIR=tmp_path, CLAPBOARD_DEVICE="cpu", CLAPBOARD_ENGINE="torch", CLAPBOARD_BATCH_SIZE=3)
    encoder = load_encoder(settings, "models/7/mini-tuned-1")
    assert (encoder.identity.model, encoder.batch_size) == ("models/7/mini-tuned-1", 3)
    with pytest.raises(ModelError):
        load_encoder(settings, "models/7/mini-tuned-2")


def test_without_a_name_it_is_the_settings_model(tiny_clap: Path) -> None:
    settings = Settings(CLAPBOARD_MODEL=str(tiny_clap), CLAPBOARD_DEVICE="cpu", CLAPBOARD_ENGINE="torch")
    assert load_encoder(settings).identity.model == str(tiny_clap)
