from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ClapModel

from clapboard.errors import ModelError, SettingsError
from clapboard.model.checkpoints import AudioTowerName, DualEncoder, TextTowerName, load_model
from clapboard.model.clap import ClapEncoder
from clapboard.model.laion import conversion, convert
from clapboard.model.laion.checkpoint import read_checkpoint, towers_of
from tests.clapboard.model.laion.originals import State, original_state, save_original
from tests.support.tower_checkpoints import SENTENCES, TEXT_TOWERS, make_model

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Kind = tuple[AudioTowerName, TextTowerName, bool]
KINDS: list[Kind] = [
    *((audio, text, False) for audio, text in itertools.product(("htsat", "cnn14"), TEXT_TOWERS)),  # type: ignore[misc]
    ("htsat", "roberta", True),
    ("htsat", "bert", True),
]


def save(folder: Path, state: State, tokenizer: Any) -> tuple[Path, str]:
    """The checkpoint's file and its tokenizer's folder."""
    tokenizer.save_pretrained(folder / "tokenizer")
    return save_original(folder / "original.pt", state), str(folder / "tokenizer")


@pytest.fixture
def pann(tmp_path: Path) -> tuple[State, str]:
    """The weights of PANN-14 beside BERT, to be spoilt, and the tokenizer's folder."""
    state, tokenizer = original_state("cnn14", "bert")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return state, str(tmp_path / "tokenizer")


def refused(state: State, tokenizer: str, folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        convert(save_original(folder / "original.pt", state), folder / "out", tokenizer=tokenizer)
    assert not [*folder.glob("out*")]


@pytest.mark.parametrize(("audio", "text", "fused"), KINDS)
def test_every_kind_is_converted_to_the_bit(
    audio: AudioTowerName, text: TextTowerName, fused: bool, tmp_path: Path
) -> None:
    file, tokenizer = save(tmp_path, *original_state(audio, text, fused=fused))
    found = convert(file, tmp_path / "out", tokenizer=tokenizer)
    assert (found.audio, found.text, found.is_fused, found.dim) == (audio, text, fused, 32)
    assert max(found.audio_distance, found.text_distance) < 1e-5
    converted, made = load_model("out", tmp_path / "out"), make_model(audio, text, fused=fused)[0]
    assert type(converted) is (ClapModel if (audio, text) == ("htsat", "roberta") else DualEncoder)
    expected = made.state_dict()
    assert converted.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in converted.state_dict().items())
    assert not [*tmp_path.glob("*.building")]


def test_a_converted_checkpoint_is_served(tmp_path: Path) -> None:
    file, tokenizer = save(tmp_path, *original_state("cnn14", "clip"))
    convert(file, tmp_path / "out", tokenizer=tokenizer)
    encoder = ClapEncoder.load(str(tmp_path / "out"), device="cpu", engine="torch", batch_size=2)
    assert encoder.embed_texts(SENTENCES).shape == (3, 32)
    assert encoder.identity.logit_scale == pytest.approx(100)
    assert {file.suffix for file in (tmp_path / "out").iterdir()} <= {".json", ".safetensors", ".txt"}


@pytest.mark.parametrize("container", ["state_dict", "model", ""])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_weights_are_found_wherever_they_lie(container: str, prefix: str, tmp_path: Path) -> None:
    weights = {f"{prefix}audio_projection.0.weight": torch.ones(2, dtype=torch.half), f"{prefix}n": torch.tensor(1)}
    file = save_original(tmp_path / "original.pt", weights, container=container) if container else tmp_path / "bare.pt"
    if not container:
        torch.save(weights, file)
    found = read_checkpoint(file)
    assert found.keys() == {"audio_projection.0.weight", "n"}
    assert (found["audio_projection.0.weight"].dtype, found["n"].dtype) == (torch.float32, torch.int64)


class Trap:
    """Whatever unpickles it, runs it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trapped"),)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_file_that_holds_no_weights_is_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "broken.pt"
    if content is None:
        torch.save({"state_dict": Trap()}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.pt can't be read as PyTorch weights"):
        read_checkpoint(file)
    assert not Path("trapped").exists()
    with pytest.raises(ModelError, match="can't be read"):
        read_checkpoint(tmp_path / "missing.pt")
    torch.save({"epoch": 3}, file)
    with pytest.raises(ModelError, match="holds no state_dict"):
        read_checkpoint(file)


def test_a_folder_that_is_there_is_left_alone(pann: tuple[State, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SettingsError, match="is there already"):
        convert(save_original(tmp_path / "original.pt", pann[0]), tmp_path / "out", tokenizer=pann[1])


def test_a_folder_that_cannot_be_written_is_an_error(pann: tuple[State, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="can't be written"):
        convert(save_original(tmp_path / "original.pt", pann[0]), tmp_path / "file" / "out", tokenizer=pann[1])


def test_a_weight_too_few_is_named(pann: tuple[State, str], tmp_path: Path) -> None:
    state, tokenizer = pann
    for name in ("logit_scale_t", "audio_branch.conv_block2.bn1.bias"):
        del state[name]
    refused(state, tokenizer, tmp_path, r"lacks weights \(audio_model.*conv_block2\.bn1\.bias and 1 more\)")


def test_a_weight_too_many_is_named(pann: tuple[State, str], tmp_path: Path) -> None:
    state, tokenizer = pann
    refused(state | {"visual.proj": torch.ones(2)}, tokenizer, tmp_path, r"no CLAP of its towers has \(visual\.proj\)")


def test_a_weight_of_another_shape_is_named(pann: tuple[State, str], tmp_path: Path) -> None:
    state, tokenizer = pann
    state["audio_branch.conv_block1.conv1.weight"] = torch.ones(8, 4, 3, 3)  # fused by channel_map
    refused(state, tokenizer, tmp_path, r"other shapes .*conv_block1\.conv1\.weight")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("audio_branch.conv_block1.conv1.weight", "neither HTSAT nor PANN-14"),
        ("text_branch.embeddings.word_embeddings.weight", "neither RoBERTa, BERT nor CLIP"),
        ("audio_projection.0.weight", r"lacks audio_projection\.0\.weight"),
    ],
)
def test_towers_that_are_not_known_are_named(pann: tuple[State, str], missing: str, message: str) -> None:
    state, _ = pann
    del state[missing]
    with pytest.raises(ModelError, match=message):
        towers_of("original.pt", state)


def test_features_of_another_recipe_are_refused(pann: tuple[State, str]) -> None:
    state, _ = pann
    mel, stft = "audio_branch.logmel_extractor.melW", "audio_branch.spectrogram_extractor.stft.conv_real.weight"
    with pytest.raises(ModelError, match="other features"):
        towers_of("original.pt", state | {mel: state[mel] * 1.1})
    with pytest.raises(ModelError, match="frames of 1536 samples"):
        towers_of("original.pt", state | {stft: torch.ones(769, 1, 1536)})


@pytest.mark.parametrize("other", ["roberta", "clip"])
def test_another_tokenizer_is_refused(pann: tuple[State, str], other: TextTowerName, tmp_path: Path) -> None:
    make_model("cnn14", other)[1].save_pretrained(tmp_path / "other")
    refused(pann[0], str(tmp_path / "other"), tmp_path, "is not the checkpoint's")


def test_a_missing_tokenizer_is_an_error(pann: tuple[State, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(pann[0], str(tmp_path / "empty"), tmp_path, "has no tokenizer")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (("htsat", "clip", False), ("audio_branch.layers.1.blocks.1.attn.qkv.weight", "ln_final.weight")),
        (("cnn14", "bert", False), ("audio_branch.conv_block2.conv1.weight", "text_branch.pooler.dense.weight")),
        (("htsat", "roberta", True), ("audio_branch.patch_embed.fusion_model.local_att.3.weight",)),
    ],
)
def test_the_check_notices_a_weight_that_is_slightly_off(kind: Kind, names: tuple[str, ...], tmp_path: Path) -> None:
    audio, text, fused = kind
    state, tokenizer = original_state(audio, text, fused=fused)
    file, folder = save(tmp_path, state, tokenizer)
    convert(file, tmp_path / "out", tokenizer=folder)
    for name in names:
        spoilt = state | {name: state[name] + 0.02 * torch.randn(state[name].shape)}
        with pytest.raises(ModelError, match=r"was not converted: its (audio|text) embeddings would be off"):
            conversion.check(tmp_path / "out", "original.pt", spoilt, towers_of("original.pt", state))
