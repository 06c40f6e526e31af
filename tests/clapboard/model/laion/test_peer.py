"""Conversions beside laion-clap's own code, where `make bench` has installed it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from clapboard.model.clap import ClapEncoder
from clapboard.model.laion import convert
from clapboard.model.laion.checkpoint import towers_of
from clapboard.model.laion.original_text import text_embedding
from tests.clapboard.model.laion.originals import State, original_state, save_original
from tests.support.laion import laion_module, small_htsat, small_pann

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def htsat() -> ModuleType:
    return laion_module("htsat")


def waveforms() -> torch.Tensor:
    return torch.randn(2, 480_000, generator=torch.Generator().manual_seed(2)) / torch.tensor([[10.0], [300.0]])


def converted(tower: torch.nn.Module, state: State, folder: Path) -> ClapEncoder:
    """What is served of a checkpoint of this tower, with all else from `state`."""
    branch = {f"audio_branch.{name}": value for name, value in tower.state_dict().items()}
    others = {name: value for name, value in state.items() if not name.startswith("audio_branch.")}
    file = save_original(folder / "original.pt", branch | others)
    convert(file, folder / "out", tokenizer=str(folder / "tokenizer"))
    return ClapEncoder.load(str(folder / "out"), device="cpu", engine="torch")


def projected(pooled: torch.Tensor, state: State) -> torch.Tensor:
    hidden = torch.nn.functional.linear(pooled, state["audio_projection.0.weight"], state["audio_projection.0.bias"])
    joint = torch.nn.functional.linear(
        hidden.relu(), state["audio_projection.2.weight"], state["audio_projection.2.bias"]
    )
    return torch.nn.functional.normalize(joint, dim=-1)


@pytest.mark.parametrize("audio", ["htsat", "cnn14"])
def test_windows_have_the_embeddings_of_laion_clap(audio: str, tmp_path: Path, htsat: ModuleType) -> None:
    theirs = small_htsat(htsat, fused=False)
    if audio == "cnn14":
        theirs = small_pann(laion_module("pann_model"), (8, 8, 16, 16, 32, 64))
    state, tokenizer = original_state("htsat" if audio == "htsat" else "cnn14", "bert")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder = converted(theirs, state, tmp_path)
    with torch.no_grad():
        expected = projected(theirs({"waveform": waveforms()}, device="cpu")["embedding"], state)
    torch.testing.assert_close(
        torch.from_numpy(encoder.embed_windows(waveforms().numpy())), expected, atol=1e-5, rtol=0
    )


def test_fusion_is_laion_clap_s(tmp_path: Path, htsat: ModuleType) -> None:
    theirs = small_htsat(htsat, fused=True)
    state, tokenizer = original_state("htsat", "roberta", fused=True)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = converted(theirs, state, tmp_path).model
    parts = torch.randn(3, 4, 1001, 64, generator=torch.Generator().manual_seed(3)) * 20 - 40
    are_longer = torch.tensor([[True], [False], [True]])
    with torch.no_grad():
        expected = projected(theirs({"mel_fusion": parts, "longer": are_longer}, device="cpu")["embedding"], state)
        found = model.get_audio_features(input_features=parts, is_longer=are_longer).pooler_output
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_clip_s_text_tower_is_laion_clap_s() -> None:
    transformer = laion_module("model").Transformer
    state, tokenizer = original_state("cnn14", "clip")
    theirs = transformer(width=128, layers=2, heads=2).eval()
    theirs.load_state_dict(
        {name.removeprefix("text_branch."): value for name, value in state.items() if ".resblocks." in name}
    )
    ids = tokenizer("a clock tick")["input_ids"]
    hidden = state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)]
    later = torch.full((len(ids), len(ids)), -torch.inf).triu(1)
    with torch.no_grad():
        states = theirs(hidden[:, None], attn_mask=later)[:, 0]
        normed = torch.nn.functional.layer_norm(states, (128,), state["ln_final.weight"], state["ln_final.bias"])
        names = (
            "text_projection.0.weight",
            "text_projection.0.bias",
            "text_projection.2.weight",
            "text_projection.2.bias",
        )
        first, first_bias, second, second_bias = (state[name] for name in names)
        joint = torch.nn.functional.linear(
            torch.nn.functional.linear(normed[-1], first, first_bias).relu(), second, second_bias
        )
        found = text_embedding(state, towers_of("original.pt", state), ids)
    torch.testing.assert_close(found[0], torch.nn.functional.normalize(joint, dim=-1), atol=1e-6, rtol=0)
