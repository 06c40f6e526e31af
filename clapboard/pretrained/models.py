"""The models themselves: read from a folder, or made anew from the names of their towers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel
from transformers.utils import logging as transformers_logging

from clapboard.errors import ModelError
from clapboard.pretrained.dual_encoder import DualEncoder, DualEncoderConfig
from clapboard.pretrained.files import read_json

Clap: TypeAlias = ClapModel | DualEncoder
"""They have in common what `DualEncoder` says."""

AudioTowerName = Literal["htsat", "cnn14"]
TextTowerName = Literal["roberta", "bert", "clip"]

_CLASSES = {"clap": ClapModel, "clapboard": DualEncoder}
_AUDIO_TYPES = {"htsat": "clap_audio_model", "cnn14": "cnn14"}
_TEXT_TYPES = {"roberta": "roberta", "bert": "bert", "clip": "clip_text_model"}


def new_model(
    audio: AudioTowerName,
    text: TextTowerName,
    *,
    projection_dim: int = 512,
    audio_sizes: Mapping[str, Any] | None = None,
    text_sizes: Mapping[str, Any] | None = None,
) -> Clap:
    """A model of these two towers with random weights; what isn't said of their sizes is as in transformers' configs.

    HTSAT beside RoBERTa is transformers' own `ClapModel`, all else a `DualEncoder`. Raises `ModelError` for sizes that
    a tower refuses.
    """
    audio_config = {**(audio_sizes or {}), "model_type": _AUDIO_TYPES[audio]}
    text_config = {**(text_sizes or {}), "model_type": _TEXT_TYPES[text]}
    try:
        if (audio, text) == ("htsat", "roberta"):
            del audio_config["model_type"], text_config["model_type"]
            config = ClapConfig(audio_config=audio_config, text_config=text_config, projection_dim=projection_dim)
            return ClapModel(config)
        return DualEncoder(DualEncoderConfig(audio_config, text_config, projection_dim))
    except (TypeError, ValueError) as error:
        raise ModelError(f"A model of {audio} and {text} can't have these sizes: {error}.") from error


def load_model(model: str, folder: Path) -> Clap:
    """The weights in float32. Raises `ModelError` if the folder holds no whole CLAP; errors call it `model`."""
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(f"Model {model} lacks config.json or safetensors weights: convert it with save_pretrained.")
    found = _CLASSES.get(str(read_json(model, folder / "config.json").get("model_type")))
    if found is None:
        raise ModelError(f"Model {model} is not a CLAP checkpoint: its config.json names another type.")
    _be_quiet()
    try:
        loaded, report = found.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except ModelError as error:  # of a tower
        raise ModelError(f"Model {model} can't be read. {error}") from error
    except Exception as error:  # of any class: each of the readers beneath has its own
        raise ModelError(f"Model {model} can't be read: its files are damaged or don't fit each other.") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ModelError(f"Model {model} lacks weights that its config asks for: it is damaged or no whole CLAP.")
    return loaded


def max_tokens(clap: Clap) -> int:
    """How many tokens a text may have: RoBERTa numbers its places from after the padding's, the others from 0."""
    config = clap.config.text_config
    longest: int = config.max_position_embeddings
    return longest - config.pad_token_id - 1 if config.model_type in {"roberta", "clap_text_model"} else longest


def save_model(clap: Clap, folder: Path) -> None:
    """Write weights (safetensors), config, and the feature extractor's file, by which the features' recipe is known.

    Beside the tokenizer's files, that is all that `ClapEncoder` and transformers load.
    """
    _be_quiet()
    clap.save_pretrained(folder)
    truncation = "fusion" if clap.config.audio_config.enable_fusion else "rand_trunc"
    ClapFeatureExtractor(frequency_min=50, truncation=truncation, padding="repeatpad").save_pretrained(folder)


def _be_quiet() -> None:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
