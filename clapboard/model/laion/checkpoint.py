"""LAION's `.pt` → its weights by their original names, and the towers that they belong to, with their sizes."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapboard.audio.log_mel import FRAME_SAMPLES, NUM_MELS, mel_filterbank
from clapboard.errors import ModelError
from clapboard.model.checkpoints import AudioTowerName, TextTowerName

State = dict[str, torch.Tensor]
"""Weights by LAION's names."""

HEAD_WIDTH = 64
"""The width of an attention head in all of LAION's text towers: RoBERTa's and BERT's base and large, and CLIP's."""

MEL = "audio_branch.logmel_extractor.melW"
STFT = tuple(f"audio_branch.spectrogram_extractor.stft.conv_{part}.weight" for part in ("real", "imag"))
_CONTAINERS = ("state_dict", "model")
_PARALLEL_PREFIX = "module."
_MEL_TOLERANCE = 1e-3  # of the largest filter's peak; other bands or scales differ by a tenth and more


@dataclass(frozen=True)
class Towers:
    """A checkpoint's towers and their sizes, as `untrained_model` takes them."""

    audio: AudioTowerName
    text: TextTowerName
    projection_dim: int
    audio_sizes: dict[str, Any]
    text_sizes: dict[str, Any]

    @property
    def is_fused(self) -> bool:
        """Whether it fuses global and local mels of long recordings."""
        return bool(self.audio_sizes.get("enable_fusion"))


def read_checkpoint(file: Path) -> State:
    """The weights in a `.pt`, without training records and prefixes. No code in the file is run.

    Raises `ModelError` if the file can't be read without running code, or holds no weights.
    """
    try:
        with torch.serialization.safe_globals(_number_types()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of any class: a damaged archive, another format, objects that would run code
        raise ModelError(f"Checkpoint {file} can't be read as PyTorch weights: check the path and the file.") from error
    for container in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"Checkpoint {file} holds no state_dict: use a .pt that LAION's code has saved.")
    weights = {str(name).removeprefix(_PARALLEL_PREFIX): value for name, value in content.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def towers_of(name: str, state: State) -> Towers:
    """The towers of the weights, by their names and shapes.

    Raises `ModelError`, which calls the checkpoint `name`, if they aren't a CLAP's, or can't be converted.
    """
    try:
        audio, audio_sizes = _audio_tower(name, state)
        text, text_sizes = _text_tower(name, state)
        projection_dim = len(state["audio_projection.0.weight"])
    except KeyError as missing:
        raise ModelError(f"Checkpoint {name} lacks {missing.args[0]}: it is damaged or no LAION-CLAP.") from None
    towers = Towers(audio, text, projection_dim, audio_sizes, text_sizes)
    _check_recipe(name, state, towers)
    return towers


def _audio_tower(name: str, state: State) -> tuple[AudioTowerName, dict[str, Any]]:
    if "audio_branch.patch_embed.proj.weight" in state:
        return "htsat", _htsat_sizes(state)
    if "audio_branch.conv_block1.conv1.weight" in state:
        num_blocks = _count(state, r"audio_branch\.conv_block(\d+)\.")
        widths = [len(state[f"audio_branch.conv_block{number}.conv2.weight"]) for number in range(1, num_blocks + 1)]
        return "cnn14", {"widths": widths}
    raise ModelError(f"Checkpoint {name} has neither HTSAT nor PANN-14 as its audio tower: it can't be converted.")


def _htsat_sizes(state: State) -> dict[str, Any]:
    width, _, patch, _ = state["audio_branch.patch_embed.proj.weight"].shape
    stages = range(_count(state, r"audio_branch\.layers\.(\d+)\."))
    tables = [state[f"audio_branch.layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in stages]
    sizes: dict[str, Any] = {
        "patch_size": patch,
        "patch_stride": [patch, patch],
        "patch_embeds_hidden_size": width,
        "depths": [_count(state, rf"audio_branch\.layers\.{stage}\.blocks\.(\d+)\.") for stage in stages],
        "num_attention_heads": [table.shape[1] for table in tables],
        "window_size": (math.isqrt(len(tables[0])) + 1) // 2,  # a table has (2 · window − 1)² rows
        "mlp_ratio": len(state["audio_branch.layers.0.blocks.0.mlp.fc1.weight"]) / width,
        "hidden_size": len(state["audio_branch.norm.weight"]),
        "enable_patch_layer_norm": "audio_branch.patch_embed.norm.weight" in state,
        "enable_fusion": "audio_branch.patch_embed.mel_conv2d.weight" in state,
    }
    if sizes["enable_fusion"]:
        narrow = len(state["audio_branch.patch_embed.fusion_model.local_att.0.weight"])
        sizes |= {"fusion_type": "aff_2d", "aff_block_r": width // narrow}
    return sizes


def _text_tower(name: str, state: State) -> tuple[TextTowerName, dict[str, Any]]:
    if "token_embedding.weight" in state:
        return "clip", _clip_sizes(state)
    if "text_branch.embeddings.word_embeddings.weight" in state:
        types = len(state["text_branch.embeddings.token_type_embeddings.weight"])
        # Both have the same names; only BERT has a second token type, for pairs of sentences.
        return ("roberta", _bert_sizes(state, 1e-5)) if types == 1 else ("bert", _bert_sizes(state, 1e-12))
    raise ModelError(f"Checkpoint {name} has neither RoBERTa, BERT nor CLIP's text tower: it can't be converted.")


def _bert_sizes(state: State, epsilon: float) -> dict[str, Any]:
    embeddings = "text_branch.embeddings."
    vocab_size, width = state[f"{embeddings}word_embeddings.weight"].shape
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": _count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": width // HEAD_WIDTH,
        "intermediate_size": len(state["text_branch.encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(state[f"{embeddings}position_embeddings.weight"]),
        "type_vocab_size": len(state[f"{embeddings}token_type_embeddings.weight"]),
        "layer_norm_eps": epsilon,
    }


def _clip_sizes(state: State) -> dict[str, Any]:
    vocab_size, width = state["token_embedding.weight"].shape
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": _count(state, r"text_branch\.resblocks\.(\d+)\."),
        "num_attention_heads": width // HEAD_WIDTH,
        "intermediate_size": len(state["text_branch.resblocks.0.mlp.c_fc.weight"]),
        "max_position_embeddings": len(state["positional_embedding"]),
        "hidden_act": "gelu",  # not OpenAI's quick one
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,  # the highest token, at which a text is pooled
    }


def _count(state: Collection[str], pattern: str) -> int:
    matches = (re.match(pattern, name) for name in state)
    return len({match[1] for match in matches if match})


def _check_recipe(name: str, state: State, towers: Towers) -> None:
    """Unfused towers bring the filters of the features that they were trained on; fused ones get theirs elsewhere."""
    if STFT[0] in state and state[STFT[0]].shape[-1] != FRAME_SAMPLES:
        raise ModelError(
            f"Checkpoint {name} was trained on frames of {state[STFT[0]].shape[-1]} samples, where CLAP has "
            f"{FRAME_SAMPLES}: it can't be converted."
        )
    if towers.is_fused or MEL not in state:
        return
    ours = torch.from_numpy(mel_filterbank("slaney", 50.0, 14_000.0)).float()
    theirs = state[MEL].float()
    if theirs.shape != ours.shape or (theirs - ours).abs().max() > _MEL_TOLERANCE * ours.max():
        raise ModelError(
            f"Checkpoint {name} was trained on other features than CLAP's {NUM_MELS} bands of 50–14,000 Hz: "
            "it can't be converted."
        )


def _number_types() -> list[Any]:
    """The types in pickled numpy numbers, of which LAION's checkpoints keep a few beside the weights."""
    make_scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64")]
    return [make_scalar, (make_scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds, codecs.encode]
