from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ClapModel, GPT2Tokenizer

from clapboard.errors import ModelError
from clapboard.model.checkpoints import (
    AudioTowerName,
    DualEncoder,
    TextTowerName,
    load_model,
    load_tokenizer,
    max_tokens,
    untrained_model,
)
from tests.support.tower_checkpoints import AUDIO_TOWERS, MAX_TOKENS, SENTENCES, TEXT_TOWERS, make_model, save_pair
from training.pretraining.tokenizer import train_tokenizer

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TINY_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": MAX_TOKENS,
}
SMALL_AUDIO = {"patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 4]}
PAIRS = [*itertools.product(AUDIO_TOWERS, TEXT_TOWERS)]
BESIDE_CLAP = [pair for pair in PAIRS if pair != ("htsat", "roberta")]


def assert_same_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    weights, others = found.state_dict(), expected.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("saved"), "cnn14", "clip")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of PANN-14 beside CLIP, to be spoilt."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize(("audio", "text"), PAIRS)
def test_a_saved_model_is_loaded_to_the_bit(audio: AudioTowerName, text: TextTowerName, tmp_path: Path) -> None:
    made, _ = make_model(audio, text)
    first, again = save_pair(tmp_path / "first", audio, text), tmp_path / "again"
    loaded = load_model("first", first)
    assert_same_weights(loaded, made)
    assert {file.suffix for file in first.iterdir()} <= {".json", ".safetensors", ".txt"}
    loaded.save_pretrained(again)
    assert_same_weights(load_model("again", again), made)
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_htsat_beside_roberta_is_transformers_own(tmp_path: Path) -> None:
    folder = save_pair(tmp_path, "htsat", "roberta")
    loaded = load_model("checkpoint", folder)
    assert type(loaded) is ClapModel
    theirs, report = ClapModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert_same_weights(loaded, theirs)


@pytest.mark.parametrize(("audio", "text"), [("htsat", "roberta"), ("cnn14", "clip")])
def test_what_is_loaded_is_what_transformers_loads(audio: AudioTowerName, text: TextTowerName, tmp_path: Path) -> None:
    folder = save_pair(tmp_path / "saved", audio, text)
    loaded = load_model("saved", folder)
    theirs = type(loaded).from_pretrained(folder, dtype=torch.float32)
    assert_same_weights(loaded, theirs)
    buffers = dict(theirs.named_buffers())  # those that aren't saved too
    assert {name: value.tolist() for name, value in loaded.named_buffers()} == {
        name: value.tolist() for name, value in buffers.items()
    }
    assert loaded.training == theirs.training
    loaded.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "ours/config.json").read_text() == (tmp_path / "theirs/config.json").read_text()


def test_weights_in_half_precision_and_several_files_are_loaded_in_float32(tmp_path: Path) -> None:
    made, _ = make_model("cnn14", "clip")
    save_pair(tmp_path, "cnn14", "clip")
    (tmp_path / "model.safetensors").unlink()
    made.half().save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_weights(load_model("sharded", tmp_path), made.float())


@pytest.mark.parametrize(("audio", "text"), BESIDE_CLAP)
def test_the_config_names_both_towers(audio: AudioTowerName, text: TextTowerName) -> None:
    model, _ = make_model(audio, text)
    assert type(model) is DualEncoder
    audio_type = {"htsat": "clap_audio_model", "cnn14": "cnn14"}[audio]
    text_type = {"roberta": "roberta", "bert": "bert", "clip": "clip_text_model"}[text]
    written = json.loads(model.config.to_json_string())
    assert (written["model_type"], written["projection_dim"]) == ("clapboard", 32)
    assert written["audio_config"]["model_type"] == audio_type
    assert written["text_config"]["model_type"] == text_type


@pytest.mark.parametrize(("audio", "text"), PAIRS)
def test_features_are_unit_norm_and_gradients_reach_every_weight(audio: AudioTowerName, text: TextTowerName) -> None:
    model, tokenizer = make_model(audio, text)
    features = torch.randn(2, 1, 1001, 64, generator=torch.Generator().manual_seed(1)) * 10 - 40
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    heard = model.get_audio_features(input_features=features).pooler_output
    read = model.get_text_features(**tokens).pooler_output
    assert heard.shape == (2, 32)
    assert read.shape == (3, 32)
    torch.testing.assert_close(torch.cat([heard, read]).norm(dim=-1), torch.ones(5))
    (heard @ read.T).sum().backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name for name, _ in model.named_parameters()} - learnt == {"logit_scale_a", "logit_scale_t"}


@pytest.mark.parametrize("text", TEXT_TOWERS)
def test_a_text_may_have_as_many_tokens_as_the_tower_has_places(text: TextTowerName) -> None:
    model, tokenizer = make_model("cnn14", text)
    assert max_tokens(model) == MAX_TOKENS
    longest = tokenizer("dog " * 50, truncation=True, max_length=max_tokens(model), return_tensors="pt")
    assert longest["input_ids"].shape == (1, MAX_TOKENS)
    with torch.no_grad():
        assert model.get_text_features(**longest).pooler_output.isfinite().all()


def test_clip_is_pooled_at_the_texts_last_token() -> None:
    model, tokenizer = make_model("cnn14", "clip")
    text = tokenizer("dog", return_tensors="pt")
    with torch.no_grad():
        states = model.text_model(**text).last_hidden_state[:, -1]  # normalised, at the end-of-text token
        expected = torch.nn.functional.normalize(model.text_projection(states), dim=-1)
        padded = tokenizer("dog", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
        for tokens in (text, padded):
            torch.testing.assert_close(model.get_text_features(**tokens).pooler_output, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("words", ["ours", "bert"])
def test_clip_reads_texts_to_their_end_whatever_the_tokenizer(words: str) -> None:
    texts = ["a dog barks loudly in the rain", "a dog barks loudly"]
    ours = train_tokenizer([*texts, *SENTENCES], vocab_size=300, max_tokens=MAX_TOKENS)
    tokenizer = ours if words == "ours" else make_model("cnn14", "bert")[1]
    model = untrained_model("cnn14", "clip", text_sizes=TINY_TEXT | {"vocab_size": len(tokenizer)}).eval()
    with torch.no_grad():
        both = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
        alone = model.get_text_features(**tokenizer(texts[1], return_tensors="pt")).pooler_output
    torch.testing.assert_close(both[1:], alone, atol=1e-6, rtol=0)
    assert (both[0] - both[1]).norm() > 0.01


def test_clips_own_tokenizer_is_pooled_as_transformers_does_it() -> None:
    model, tokenizer = make_model("cnn14", "clip")
    texts = [*SENTENCES, "dog", "a dog " * 40]
    for length in (MAX_TOKENS, 6):
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            theirs = model.text_projection(model.text_model(**tokens).pooler_output)
            found = model.get_text_features(**tokens).pooler_output
        torch.testing.assert_close(found, torch.nn.functional.normalize(theirs, dim=-1), atol=0, rtol=0)


def test_real_sizes_are_those_of_the_originals() -> None:
    with torch.device("meta"):
        model = untrained_model("cnn14", "bert")
    assert (model.audio_projection.linear1.in_features, model.text_projection.linear1.in_features) == (2048, 768)
    assert model.audio_projection.linear2.out_features == model.text_projection.linear2.out_features == 512
    assert max_tokens(model) == 512


@pytest.mark.parametrize(
    ("audio", "text", "sizes", "said"),
    [
        (
            "cnn14",
            "bert",
            {"text_sizes": {"hidden_size": 30, "num_attention_heads": 4}},
            "num_attention_heads .* is 4, ",
        ),
        (
            "htsat",
            "roberta",
            {"text_sizes": TINY_TEXT | {"hidden_size": 0}},
            "hidden_size of tower roberta is 0: write",
        ),
        ("htsat", "clip", {"text_sizes": TINY_TEXT | {"num_hidden_layers": -1}}, "num_hidden_layers .* is -1: write"),
        ("cnn14", "roberta", {"text_sizes": TINY_TEXT | {"hidden_size": 2.5}}, "hidden_size of tower roberta is 2.5"),
        ("cnn14", "clip", {"text_sizes": TINY_TEXT | {"hidden_size": "16"}}, "hidden_size of tower clip is '16'"),
        ("cnn14", "bert", {"text_sizes": TINY_TEXT | {"hidden_dropout_prob": 1}}, "hidden_dropout_prob .* is 1: write"),
        (
            "cnn14",
            "roberta",
            {"text_sizes": {"max_position_embeddings": 4}},
            "max_position_embeddings .* is 4: write 5",
        ),
        ("cnn14", "bert", {"text_sizes": {"intermediate_size": 10**12}}, "choose a smaller text_sizes"),
        ("cnn14", "bert", {"text_sizes": TINY_TEXT | {"vocab_size": 10**12}}, "choose a smaller text_sizes"),
        (
            "cnn14",
            "bert",
            {"text_sizes": TINY_TEXT | {"hidden_act": "gulp"}},
            "bert with .*hidden_act gulp can't be made",
        ),
        ("cnn14", "bert", {"audio_sizes": {"widths": [4] * 8}}, "widths of tower cnn14 has 8 numbers: write 6 at most"),
        ("cnn14", "clip", {"audio_sizes": {"widths": 8}}, "widths of tower cnn14 is 8: write a list"),
        ("cnn14", "clip", {"audio_sizes": {"widths": [8, 0]}}, r"widths of tower cnn14 is \[8, 0\]: write a list"),
        ("cnn14", "clip", {"audio_sizes": {"widths": [8, 10**9]}}, "choose a smaller audio_sizes"),
        ("htsat", "bert", {"audio_sizes": SMALL_AUDIO | {"depths": [1] * 5}}, "depths .* 5 numbers, and num_attention"),
        (
            "htsat",
            "bert",
            {"audio_sizes": SMALL_AUDIO | {"depths": [1] * 5, "num_attention_heads": [1] * 5}},
            "depths of tower htsat has 5 numbers: with patch_size 4 and window_size 8 write 4 at most",
        ),
        (
            "htsat",
            "clip",
            {"audio_sizes": SMALL_AUDIO | {"num_attention_heads": [1, 3, 1, 1]}},
            "num_attention_heads of tower htsat has 3 for stage 2",
        ),
        ("htsat", "clip", {"audio_sizes": SMALL_AUDIO | {"window_size": 7}}, "window_size of tower htsat is 7"),
        ("htsat", "roberta", {"audio_sizes": SMALL_AUDIO | {"patch_size": 3}}, "patch_stride of tower htsat is"),
        ("htsat", "roberta", {"audio_sizes": SMALL_AUDIO | {"num_mel_bins": 32}}, "num_mel_bins .* is 32: only 64"),
        ("htsat", "roberta", {"audio_sizes": SMALL_AUDIO | {"spec_size": 128}}, "spec_size .* is 128: only 256"),
        ("htsat", "roberta", {"audio_sizes": SMALL_AUDIO | {"mlp_ratio": float("nan")}}, "mlp_ratio .* is nan: write"),
        ("htsat", "roberta", {"audio_sizes": SMALL_AUDIO | {"hidden_size": 65}}, "hidden_size of tower htsat is 65"),
        ("htsat", "roberta", {"projection_dim": 0}, "projection_dim is 0: write"),
        ("htsat", "roberta", {"projection_dim": 10**9}, "choose a smaller projection_dim"),
        ("htsat", "bert", {"audio_sizes": {"depth": [1, 1, 1, 1]}}, "no size depth: write some of .*depths"),
        ("cnn14", "bert", {"audio_sizes": {"enable_fusion": True}}, "no size enable_fusion: write some of .*widths"),
        ("htsat", "clip", {"text_sizes": {"hiden_size": 16}}, "no size hiden_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    audio: AudioTowerName, text: TextTowerName, sizes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as raised:
        untrained_model(
            audio, text, **{"audio_sizes": SMALL_AUDIO if audio == "htsat" else {}, "text_sizes": TINY_TEXT} | sizes
        )
    assert str(raised.value).count(".") < 4
    assert "tensor" not in str(raised.value)


@pytest.mark.parametrize("num_stages", [3, 4])
def test_htsats_last_width_follows_from_its_first(num_stages: int) -> None:
    sizes = SMALL_AUDIO | {"depths": [1] * num_stages}
    model = untrained_model("htsat", "bert", audio_sizes=sizes, text_sizes=TINY_TEXT)
    assert model.config.audio_config.hidden_size == 8 << (num_stages - 1)
    assert model.audio_projection.linear1.in_features == 8 << (num_stages - 1)


@pytest.mark.parametrize("tower", ["audio_config", "text_config"])
def test_an_unknown_tower_is_named(copy: Path, tower: str) -> None:
    change_config(copy, **{tower: {"model_type": "whale"}})
    with pytest.raises(ModelError, match=r"Model copy can't be read\. Tower whale is unknown: choose one of"):
        load_model("copy", copy)


def test_another_type_of_model_is_refused(copy: Path) -> None:
    change_config(copy, model_type="bert")
    with pytest.raises(ModelError, match="is not a CLAP checkpoint"):
        load_model("copy", copy)


def test_a_missing_weight_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["audio_model.audio_encoder.conv_block3.bn1.running_mean"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights"):
        load_model("copy", copy)


def test_weights_of_other_sizes_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text("utf-8"))
    change_config(copy, audio_config=config["audio_config"] | {"widths": [8, 8, 16, 16, 32, 32]})
    with pytest.raises(ModelError, match="Model copy "):
        load_model("copy", copy)


def test_pickled_weights_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save(make_model("cnn14", "clip")[0].state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model("copy", copy)


@pytest.mark.parametrize("text", TEXT_TOWERS)
def test_each_tokenizer_is_loaded_from_its_folder_alone(text: TextTowerName, tmp_path: Path) -> None:
    _, tokenizer = make_model("cnn14", text)
    folder = save_pair(tmp_path, "cnn14", text)
    assert load_tokenizer("checkpoint", folder)(SENTENCES)["input_ids"] == tokenizer(SENTENCES)["input_ids"]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer("checkpoint", folder)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path) -> None:
    words = make_model("cnn14", "roberta")[1].get_vocab()
    GPT2Tokenizer(vocab=words, merges=[]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no token to pad texts with: choose another"):
        load_tokenizer("checkpoint", tmp_path)
