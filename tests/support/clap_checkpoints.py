"""CLAP checkpoints with random weights, always the same ones, in the layout of the real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

_FUSION = {"enable_fusion": True, "fusion_type": "aff_2d"}


def save_tiny(folder: Path, *, fused: bool) -> Path:
    """Write a very small CLAP (0.3 M parameters, D = 32) into the folder, and return it."""
    text = {
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
    }
    audio: dict[str, Any] = {
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
        "hidden_size": 128,
    }
    return _save(
        folder, ClapConfig(text_config=text, audio_config=audio | (_FUSION if fused else {}), projection_dim=32)
    )


def save_real_size(folder: Path, *, fused: bool) -> Path:
    """Write a CLAP of the size of `laion/clap-htsat-unfused` or `-fused` into the folder, and return it."""
    return _save(folder, ClapConfig(audio_config=_FUSION if fused else {}))


def _save(folder: Path, config: ClapConfig) -> Path:
    tokenizer = _tokenizer(config.text_config.max_position_embeddings - 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = ClapModel(config)
        _make_discerning(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    truncation = "fusion" if config.audio_config.enable_fusion else "rand_trunc"
    ClapFeatureExtractor(frequency_min=50, truncation=truncation).save_pretrained(folder)
    return folder


def _make_discerning(model: ClapModel) -> None:
    """As CLAP starts out, all clips get nearly the same embedding, and any two scores would be alike."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_normal_(parameter)
    norm = model.audio_model.audio_encoder.batch_norm  # of decibels, as in a trained checkpoint
    norm.running_mean.fill_(-40)
    norm.running_var.fill_(400)
    model.logit_scale_a.data.fill_(math.log(100))


def _tokenizer(max_tokens: int) -> RobertaTokenizer:
    learner = ByteLevelBPETokenizer(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # in RoBERTa's order, which CLAP's config names by number
    sentences = ["This is a sound of a dog.", "This is a sound of rain.", "This is a sound of a clock tick."]
    learner.train_from_iterator(sentences, vocab_size=300, special_tokens=special, show_progress=False)
    model: dict[str, Any] = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, add_prefix_space=True, model_max_length=max_tokens)
