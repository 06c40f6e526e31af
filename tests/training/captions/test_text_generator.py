from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clapboard.errors import ModelError
from tests.support.clap_checkpoints import save_tiny
from tests.support.text_models import CAPTIONS, save_random_t5, save_taught_t5
from training.captions.text_generator import TextGenerator

PROMPTS = list(CAPTIONS)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_taught_t5(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return TextGenerator.load(str(save_random_t5(tmp_path_factory.mktemp("untaught"))))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_likeliest_text_of_each_prompt_comes_back_in_order(taught: Path, batch_size: int) -> None:
    generator = TextGenerator.load(str(taught), batch_size=batch_size)
    assert generator.generate(PROMPTS) == [(caption,) for caption in CAPTIONS.values()]
    assert generator.generate([]) == []


def test_samples_follow_from_prompt_and_seed_alone(untaught: TextGenerator) -> None:
    found = untaught.generate(PROMPTS[:2], num_variants=3, seed=1)
    assert [len(set(texts)) for texts in found] == [3, 3]
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert untaught.generate(PROMPTS[1::-1], num_variants=3, seed=1) == found[::-1]
    assert torch.equal(torch.random.get_rng_state(), before)  # training's random numbers stay its own
    assert untaught.generate(PROMPTS[:2], num_variants=3, seed=2) != found


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="folder /nowhere/t5 doesn't exist: check its path"):
        TextGenerator.load("/nowhere/t5")


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("tokenizer.json", "has no tokenizer: copy its tokenizer.json"),
        ("model.safetensors", "has no safetensors weights: convert it"),
        ("config.json", "can't be read"),
    ],
)
def test_a_folder_without_one_of_its_files_is_refused(tmp_path: Path, lost: str, reason: str) -> None:
    save_random_t5(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(ModelError, match=reason):
        TextGenerator.load(str(tmp_path))


def test_damaged_or_missing_weights_are_refused(tmp_path: Path) -> None:
    save_random_t5(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": 2, "num_decoder_layers": 2}))
    with pytest.raises(ModelError, match="lacks weights that its config asks for"):
        TextGenerator.load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ModelError, match="can't be read"):
        TextGenerator.load(str(tmp_path))


def test_a_model_that_writes_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="doesn't turn text into text"):
        TextGenerator.load(str(save_tiny(tmp_path, fused=False)))
