"""Checkpoints as LAION's code saves them, made of small models of ours: the inverse of what is tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapboard.audio.log_mel import mel_filterbank
from clapboard.model.checkpoints import AudioTowerName, Clap, TextTowerName
from tests.support.tower_checkpoints import make_model

State = dict[str, torch.Tensor]

_BACK = (
    ("audio_model.audio_encoder.", "audio_branch."),
    ("text_model.", "text_branch."),
    ("_projection.linear1.", "_projection.0."),
    ("_projection.linear2.", "_projection.2."),
)
_BACK_HTSAT = (
    ("audio_branch.batch_norm.", "audio_branch.bn0."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.self.", ".attn."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)
_BACK_CLIP = (
    ("text_branch.embeddings.token_embedding.", "token_embedding."),
    ("text_branch.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_branch.final_layer_norm.", "ln_final."),
    ("text_branch.encoder.layers.", "text_branch.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.", ".attn."),
)


def original_state(audio: AudioTowerName, text: TextTowerName, *, fused: bool = False) -> tuple[State, Any]:
    """The weights of a small model under LAION's names, with all that stands beside them there, and the tokenizer."""
    model, tokenizer = make_model(audio, text, fused=fused)
    state: State = dict(_renamed(model, audio, text))
    state = _joined(state, (".attn.query.", ".attn.key.", ".attn.value."), ".attn.qkv.")
    state = _joined(state, (".attn.q_proj.", ".attn.k_proj.", ".attn.v_proj."), ".attn.in_proj_")
    return state | _beside(model, audio, text), tokenizer


def save_original(file: Path, state: State, *, container: str = "state_dict") -> Path:
    """Write a checkpoint like those of LAION's trainer, whose records hold numpy's numbers; return its path."""
    records = {"epoch": 45, "name": "PANN-14", "scores": [np.float64(0.9), np.float32(0.8), np.int64(3)]}
    torch.save(records | {container: state}, file)
    return file


def _renamed(model: Clap, audio: AudioTowerName, text: TextTowerName) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in model.state_dict().items():
        is_audio = name.startswith("audio_model.")
        of_tower = (
            _BACK_HTSAT if is_audio and audio == "htsat" else _BACK_CLIP if not is_audio and text == "clip" else ()
        )
        for ours, theirs in (*_BACK, *of_tower):
            name = name.replace(ours, theirs)
        yield name, value


def _joined(state: State, parts: tuple[str, str, str], whole: str) -> State:
    joined = {}
    for name, value in state.items():
        if parts[0] in name:
            joined[name.replace(parts[0], whole)] = torch.cat([state[name.replace(parts[0], part)] for part in parts])
        elif not any(part in name for part in parts):
            joined[name] = value
    return joined


def _beside(model: Clap, audio: AudioTowerName, text: TextTowerName) -> State:
    """Buffers and layers that LAION's models keep, of which a converted one has no need."""
    turn = 2 * torch.pi * torch.outer(torch.arange(513.0), torch.arange(1024.0)).double() / 1024
    hann = torch.hann_window(1024, dtype=torch.float64)
    state = {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": (turn.cos() * hann).float()[:, None],
        "audio_branch.spectrogram_extractor.stft.conv_imag.weight": (-turn.sin() * hann).float()[:, None],
        "audio_branch.logmel_extractor.melW": torch.from_numpy(mel_filterbank("slaney", 50.0, 14_000.0)).float(),
        "audio_transform.sequential.0.weight": torch.ones(32, 32),
        "text_transform.sequential.3.bias": torch.ones(32),
    }
    if text != "clip":
        state["text_branch.embeddings.position_ids"] = torch.arange(26)[None]
    if audio == "cnn14":
        return state | {"audio_branch.fc_audioset.weight": torch.ones(527, 64)}
    for stage, layer in enumerate(model.audio_model.audio_encoder.layers):
        for number, block in enumerate(layer.blocks):
            side = block.input_resolution[0]
            if side > block.window_size and number % 2:
                mask = block.get_attn_mask(side, side, torch.float32, torch.device("cpu"))
                state[f"audio_branch.layers.{stage}.blocks.{number}.attn_mask"] = mask
    return state | {"audio_branch.tscam_conv.weight": torch.ones(1), "audio_branch.head.bias": torch.ones(527)}
