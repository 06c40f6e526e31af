"""Checkpoints of any two towers, very small and with random weights, always the same ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer, pre_tokenizers
from transformers import BertTokenizer, CLIPTokenizer, RobertaTokenizer

from clapboard.model.checkpoints import AudioTowerName, Clap, TextTowerName, save_model, untrained_model

AUDIO_TOWERS: tuple[AudioTowerName, ...] = ("htsat", "cnn14")
TEXT_TOWERS: tuple[TextTowerName, ...] = ("roberta", "bert", "clip")
MAX_TOKENS = 24

SENTENCES = ["This is a sound of a dog.", "This is a sound of rain.", "This is a sound of a clock tick."]

_AUDIO_SIZES: dict[AudioTowerName, dict[str, Any]] = {
    "htsat": {
        "patch_embeds_hidden_size": 16,
        "depths": [1, 2, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
        "hidden_size": 128,
    },
    "cnn14": {"widths": [8, 8, 16, 16, 32, 64]},
}
_TEXT_SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}


def make_model(audio: AudioTowerName, text: TextTowerName, *, fused: bool = False) -> tuple[Clap, Any]:
    """A model of these towers, in inference mode, and its tokenizer. Text heads are 64 wide, as everywhere."""
    tokenizer = {"roberta": _roberta_tokenizer, "bert": _bert_tokenizer, "clip": _clip_tokenizer}[text]()
    of_text = {
        "roberta": {"max_position_embeddings": MAX_TOKENS + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
        "bert": {"max_position_embeddings": MAX_TOKENS},
        "clip": {
            "max_position_embeddings": MAX_TOKENS,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
    }[text]
    fusion = {"enable_fusion": True, "fusion_type": "aff_2d"} if fused else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = untrained_model(
            audio,
            text,
            projection_dim=32,
            audio_sizes=_AUDIO_SIZES[audio] | fusion,
            text_sizes=_TEXT_SIZES | of_text | {"vocab_size": len(tokenizer)},
        )
        _make_discerning(model)
    return model.eval(), tokenizer


def save_pair(folder: Path, audio: AudioTowerName, text: TextTowerName, *, fused: bool = False) -> Path:
    """Write a checkpoint of these towers into the folder, and return it."""
    model, tokenizer = make_model(audio, text, fused=fused)
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    return folder


def _make_discerning(model: Clap) -> None:
    """Weights so far from zero that a mistake anywhere moves an embedding, and the statistics of decibels."""
    for parameter in model.parameters():
        if parameter.ndim == 4:  # a convolution, after which ReLU halves what there is
            torch.nn.init.kaiming_normal_(parameter)
        elif parameter.ndim > 1:
            torch.nn.init.xavier_normal_(parameter)
        else:
            parameter.data += 0.05 * torch.randn(parameter.shape)
    model.logit_scale_a.data.fill_(math.log(100))
    model.logit_scale_t.data.fill_(math.log(50))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    encoder = model.audio_model.audio_encoder
    first = getattr(encoder, "batch_norm", None) or encoder.bn0
    first.running_mean.fill_(-40)
    first.running_var.fill_(400)


def _roberta_tokenizer() -> RobertaTokenizer:
    learner = ByteLevelBPETokenizer(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # in RoBERTa's order, which its config names by number
    learner.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=special, show_progress=False)
    model: dict[str, Any] = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, add_prefix_space=True, model_max_length=MAX_TOKENS)


def _clip_tokenizer() -> CLIPTokenizer:
    """As CLIP's: words end in </w>, and the special tokens come last, so that the end of a text is its highest."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in sorted({word for sentence in SENTENCES for word in sentence.lower().rstrip(".").split()}):
        grown, *others = [*word[:-1], f"{word[-1]}</w>"]
        for other in others:
            merges[grown, other] = None
            grown += other
            pieces[grown] = None
    vocab = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[*merges], model_max_length=MAX_TOKENS)


def _bert_tokenizer() -> BertTokenizer:
    words = sorted({word for sentence in SENTENCES for word in sentence.lower().replace(".", " .").split()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocab, model_max_length=MAX_TOKENS)
