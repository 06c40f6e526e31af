"""The embedded checkpoint: its shape, and the folder it is published in."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

from training.tokenizer import MAX_TOKENS


def new_model(vocab_size: int, *, width: int = 48, depths: tuple[int, ...] = (2, 2, 4, 2)) -> ClapModel:
    """A CLAP with random weights: HTSAT of the given width and depths, and a two-layer text tower."""
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": MAX_TOKENS + 2,  # RoBERTa counts positions from 2
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,
        "projection_dim": 256,
    }
    audio = {
        # Patches of 8 × 8 instead of 4 × 4: a quarter of the tokens, so that two cores can train it from scratch.
        "patch_size": 8,
        "patch_stride": [8, 8],
        "window_size": 4,
        "patch_embeds_hidden_size": width,
        "depths": list(depths),
        "num_attention_heads": [2, 4, 8, 16][: len(depths)],
        "hidden_size": width << (len(depths) - 1),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "enable_fusion": False,
        "projection_dim": 256,
    }
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=256))
    for tower in (model.text_model, model.text_projection):
        for module in tower.modules():
            if isinstance(module, torch.nn.Linear):
                # transformers' own start is so small that all texts begin at a cosine of 0.9
                torch.nn.init.xavier_uniform_(module.weight)
    return model


def publish(model: ClapModel, tokenizer: RobertaTokenizer, folder: Path) -> None:
    """Writes the folder that transformers and `ClapEncoder` load: float16 weights, complete or not at all."""
    building = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    half = ClapModel(model.config)
    half.load_state_dict(model.state_dict())
    half.to(torch.float16).save_pretrained(building)
    tokenizer.save_pretrained(building)
    ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="repeatpad").save_pretrained(building)
    shutil.rmtree(folder, ignore_errors=True)
    building.replace(folder)
