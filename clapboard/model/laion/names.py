"""LAION's names for a checkpoint's weights → those of `ClapModel` and `DualEncoder`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import torch

from clapboard.errors import ModelError
from clapboard.model.checkpoints import Clap
from clapboard.model.laion.checkpoint import State, Towers

_UNNEEDED = (
    r"audio_branch\.(spectrogram_extractor|logmel_extractor)\.",  # `LogMel` does it
    r"audio_branch\.(tscam_conv|head|fc_audioset)\.",  # AudioSet's classes, computed beside the pooled vector
    r"audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask$",  # follows from the sizes
    r"text_branch\.embeddings\.(position_ids|token_type_ids)$",  # 0, 1, 2, …, and zeros
    r"(audio|text)_transform\.",  # layers that only the training loss uses
    r"attn_mask$",  # CLIP's causal mask
)
_OWN_BUFFERS = (".position_ids", ".token_type_ids")  # which the model fills itself

_RENAMED = {
    "htsat": (
        (r"^audio_branch\.bn0\.", "audio_branch.batch_norm."),
        (r"^(audio_branch\.layers\..*)\.norm1\.", r"\1.layernorm_before."),
        (r"^(audio_branch\.layers\..*)\.norm2\.", r"\1.layernorm_after."),
        (r"^(audio_branch\.layers\..*)\.attn\.proj\.", r"\1.attention.output.dense."),
        (r"^(audio_branch\.layers\..*)\.attn\.", r"\1.attention.self."),
        (r"^(audio_branch\.layers\..*)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"^(audio_branch\.layers\..*)\.mlp\.fc2\.", r"\1.output.dense."),
    ),
    "cnn14": (),
    "roberta": (),
    "bert": (),
    "clip": (
        (r"^token_embedding\.", "text_branch.embeddings.token_embedding."),
        (r"^positional_embedding$", "text_branch.embeddings.position_embedding.weight"),
        (r"^ln_final\.", "text_branch.final_layer_norm."),
        (r"^text_branch\.resblocks\.(\d+)\.ln_([12])\.", r"text_branch.encoder.layers.\1.layer_norm\2."),
        (r"^text_branch\.resblocks\.(\d+)\.mlp\.c_fc\.", r"text_branch.encoder.layers.\1.mlp.fc1."),
        (r"^text_branch\.resblocks\.(\d+)\.mlp\.c_proj\.", r"text_branch.encoder.layers.\1.mlp.fc2."),
        (r"^text_branch\.resblocks\.(\d+)\.attn\.", r"text_branch.encoder.layers.\1.self_attn."),
    ),
    "both": (
        (r"^audio_branch\.", "audio_model.audio_encoder."),
        (r"^text_branch\.", "text_model."),
        (r"^(audio|text)_projection\.0\.", r"\1_projection.linear1."),
        (r"^(audio|text)_projection\.2\.", r"\1_projection.linear2."),
    ),
}
_SPLIT = (
    (r"\.qkv\.(weight|bias)$", ("query", "key", "value")),  # HTSAT's
    (r"\.in_proj_(weight|bias)$", ("q_proj", "k_proj", "v_proj")),  # CLIP's
)


def fill(clap: Clap, name: str, state: State, towers: Towers) -> list[str]:
    """Load the weights into a model of the same towers. Returns LAION's names of those that no model needs.

    Raises `ModelError`, which calls the checkpoint `name`, if there is a weight too many, too few, or of another shape.
    """
    unneeded = [key for key in state if any(re.match(pattern, key) for pattern in _UNNEEDED)]
    weights = {new: value for key in state.keys() - unneeded for new, value in _renamed(key, state[key], towers)}
    expected = clap.state_dict()
    _refuse(name, "has weights that no CLAP of its towers has", weights.keys() - expected.keys())
    _refuse(name, "lacks weights", {key for key in expected.keys() - weights.keys() if not key.endswith(_OWN_BUFFERS)})
    unlike = {key for key, value in weights.items() if value.shape != expected[key].shape}
    _refuse(name, "has weights of other shapes than its towers", unlike)
    clap.load_state_dict(weights, strict=False)
    return unneeded


def _renamed(key: str, value: torch.Tensor, towers: Towers) -> Iterator[tuple[str, torch.Tensor]]:
    for part in (towers.audio, towers.text, "both"):
        for pattern, replacement in _RENAMED[part]:
            key = re.sub(pattern, replacement, key)
    for pattern, parts in _SPLIT:
        if match := re.search(pattern, key):
            for part, chunk in zip(parts, value.chunk(3), strict=True):
                yield f"{key[: match.start()]}.{part}.{match[1]}", chunk
            return
    yield key, value


def _refuse(name: str, fault: str, keys: Collection[str]) -> None:
    if keys:
        first, rest = min(keys), f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise ModelError(f"Checkpoint {name} {fault} ({first}{rest}): it is damaged, or no CLAP that can be converted.")
