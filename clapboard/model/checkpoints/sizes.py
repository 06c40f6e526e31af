"""The sizes that people write for towers, checked: if a tower can't have them, an error names the wrong number."""

from __future__ import annotations

import inspect
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

from clapboard.audio.log_mel import NUM_MELS
from clapboard.errors import ModelError
from clapboard.model.checkpoints.dual_encoder import AUDIO_TOWERS, TEXT_TOWERS

_MOST_BLOCKS = 6  # of PANN-14: each but the last halves the 64 mel bands, and two must be left
_FEWEST_TOKENS = 3  # a text's first and last token, and one between
_IMAGE_SIDE = 256  # of HTSAT: 1024 frames in four strips of 64 bands
_FIXED = {
    "num_mel_bins": NUM_MELS,
    "spec_size": _IMAGE_SIDE,
    "patch_embed_input_channels": 1,
    "flatten_patch_embeds": True,
    "hidden_act": "gelu",
}
_BYTES = 4
_COPIES = 4  # of every weight in training: itself, its average, its gradient and the optimiser's state


def tower_sizes(tower: str, sizes: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The tower's config: the given sizes, checked, and those that follow from them.

    Raises `ModelError`, naming the number, for a size that the tower doesn't know (transformers would ignore it) or
    can't have.
    """
    config = (AUDIO_TOWERS | TEXT_TOWERS)[model_type][0]
    of_any_tower = inspect.signature(PretrainedConfig).parameters.keys() | {"options"}
    names = inspect.signature(config).parameters.keys() - of_any_tower
    if unknown := sorted(sizes.keys() - names):
        raise ModelError(f"Tower {tower} has no size {unknown[0]}: write some of {', '.join(sorted(names))}.")
    default = config()
    for name, value in sizes.items():
        _require_kind(tower, name, value, getattr(default, name, None))
    whole = {name: sizes.get(name, getattr(default, name, None)) for name in names}
    derived: dict[str, Any] = {}
    if tower == "cnn14":
        _require_blocks(whole["widths"])
    elif tower == "htsat":
        derived["hidden_size"] = _require_stages(sizes, whole)
    else:
        _require_text(tower, whole)
    return {**derived, **sizes, "model_type": model_type}


def require_memory(projection_dim: int, audio: Mapping[str, Any], text: Mapping[str, Any], text_tower: str) -> None:
    """Raises `ModelError` if the weights alone, as training keeps them, wouldn't fit into this machine's memory."""
    if projection_dim < 1 or isinstance(projection_dim, bool):
        raise ModelError(f"Size projection_dim is {projection_dim}: write a whole number of 1 or more.")
    whole = {**vars(TEXT_TOWERS[text_tower][0]()), **text}
    width, inner = whole["hidden_size"], whole["intermediate_size"]
    rows = whole["vocab_size"] + whole["max_position_embeddings"]
    parts = {
        "text_sizes": rows * width + whole["num_hidden_layers"] * (4 * width * width + 2 * width * inner),
        "audio_sizes": _audio_weights(audio),
    }
    parts["projection_dim"] = projection_dim * (projection_dim * 2 + width + audio.get("hidden_size", 2048))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (needed := sum(parts.values()) * _BYTES * _COPIES) > memory:
        largest = max(parts, key=lambda name: parts[name])
        raise ModelError(
            f"A model of these sizes needs {needed / 1e9:,.0f} GB for its weights in training, and this machine has "
            f"{memory / 1e9:,.0f} GB: choose a smaller {largest}, which is most of it."
        )


def _audio_weights(sizes: Mapping[str, Any]) -> int:
    """The rough number of an audio tower's weights."""
    if sizes["model_type"] == "cnn14":
        widths = [1, *sizes.get("widths", AUDIO_TOWERS["cnn14"][0]().widths)]
        return sum(9 * (before + width) * width for before, width in itertools.pairwise(widths))
    whole = {**vars(AUDIO_TOWERS["clap_audio_model"][0]()), **sizes}
    first = whole["patch_embeds_hidden_size"]
    return sum(12 * depth * (first << stage) ** 2 for stage, depth in enumerate(whole["depths"]))


def _require_kind(tower: str, name: str, value: Any, default: Any) -> None:
    """Raises `ModelError` for a value that isn't of the default's kind, or out of bounds."""
    requirement = ""
    if isinstance(default, bool):
        requirement = "" if isinstance(value, bool) else "true or false"
    elif isinstance(default, int):
        least = 0 if name.endswith("_token_id") else 1
        requirement = "" if _is_whole(value, least) else f"a whole number of {least} or more"
    elif isinstance(default, float):
        most = 1.0 if "drop" in name else math.inf
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < most
        requirement = "" if fits else "a number from 0 to below 1" if most == 1.0 else "a number of 0 or more"
    elif isinstance(default, list | tuple):
        fits = isinstance(value, list | tuple) and len(value) > 0 and all(_is_whole(item, 1) for item in value)
        requirement = "" if fits else "a list of whole numbers of 1 or more"
    elif isinstance(default, str):
        requirement = "" if isinstance(value, str) else "a word"
    if requirement:
        raise ModelError(f"Size {name} of tower {tower} is {_short(value)}: write {requirement}.")


def _require_blocks(widths: Sequence[int]) -> None:
    if len(widths) > _MOST_BLOCKS:
        raise ModelError(
            f"Size widths of tower cnn14 has {len(widths)} numbers: write {_MOST_BLOCKS} at most, since each block "
            "but the last halves the mel bands."
        )


def _require_stages(sizes: Mapping[str, Any], whole: Mapping[str, Any]) -> int:
    """The width of HTSAT's last stage, which follows from the first one's and the number of stages."""
    depths, heads, first = whole["depths"], whole["num_attention_heads"], whole["patch_embeds_hidden_size"]
    if len(depths) > len(heads):
        raise ModelError(
            f"Size depths of tower htsat has {len(depths)} numbers, and num_attention_heads {len(heads)}: write as "
            "many of both, one for each stage."
        )
    for stage, number in enumerate(heads[: len(depths)]):
        if (width := first << stage) % number:
            raise ModelError(
                f"Size num_attention_heads of tower htsat has {number} for stage {stage + 1}, which is {width} wide "
                f"(patch_embeds_hidden_size {first}, doubled by each stage): write a divisor of that."
            )
    for name, fixed in _FIXED.items():
        if whole[name] != fixed:
            raise ModelError(f"Size {name} of tower htsat is {_short(whole[name])}: only {fixed} is possible.")
    last = first << (len(depths) - 1)
    if sizes.get("hidden_size", last) != last:
        raise ModelError(
            f"Size hidden_size of tower htsat is {sizes['hidden_size']}: it follows from patch_embeds_hidden_size "
            f"{first} and {len(depths)} stages as {last}, so leave it out."
        )
    _require_image(whole, len(depths))
    return int(last)


def _require_image(whole: Mapping[str, Any], num_stages: int) -> None:
    """Raises `ModelError` unless the image divides into patches, and these into groups, in every stage."""
    stride, patch, window = whole["patch_stride"], whole["patch_size"], whole["window_size"]
    if any(step != patch for step in (stride if isinstance(stride, list | tuple) else [stride])):
        raise ModelError(f"Size patch_stride of tower htsat is {_short(stride)}: it has to be patch_size, {patch}.")
    if NUM_MELS % (group := patch * window):
        raise ModelError(
            f"Size window_size of tower htsat is {window}, which times patch_size {patch} doesn't divide {NUM_MELS} "
            "mel bands: write powers of 2."
        )
    if _IMAGE_SIDE % (group << (num_stages - 1)):
        most = (_IMAGE_SIDE // group).bit_length()
        raise ModelError(
            f"Size depths of tower htsat has {num_stages} numbers: with patch_size {patch} and window_size {window} "
            f"write {most} at most, since each stage but the last halves the image."
        )


def _require_text(tower: str, whole: Mapping[str, Any]) -> None:
    width, heads = whole["hidden_size"], whole["num_attention_heads"]
    if width % heads:
        raise ModelError(
            f"Size num_attention_heads of tower {tower} is {heads}, which doesn't divide hidden_size {width}: write a "
            "divisor of that."
        )
    first = whole["pad_token_id"] + 1 if tower == "roberta" else 0
    if (places := whole["max_position_embeddings"]) - first < _FEWEST_TOKENS:
        raise ModelError(
            f"Size max_position_embeddings of tower {tower} is {places}: write {first + _FEWEST_TOKENS} or more."
        )
    if whole["pad_token_id"] >= whole["vocab_size"]:
        raise ModelError(
            f"Size pad_token_id of tower {tower} is {whole['pad_token_id']}, beyond vocab_size {whole['vocab_size']}."
        )


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
