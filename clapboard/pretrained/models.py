"""The models themselves: read from a folder, or made anew from the names of their towers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PretrainedConfig
from transformers.utils import logging as transformers_logging

from clapboard.errors import ModelError
from clapboard.features import NUM_FRAMES, NUM_MELS
from clapboard.pretrained.dual_encoder import AUDIO_TOWERS, TEXT_TOWERS, DualEncoder, DualEncoderConfig
from clapboard.pretrained.files import read_json

Clap: TypeAlias = ClapModel | DualEncoder
"""They have in common what `DualEncoder` says."""

AudioTowerName = Literal["htsat", "cnn14"]
TextTowerName = Literal["roberta", "bert", "clip"]

_CLASSES = {"clap": ClapModel, "clapboard": DualEncoder}
_AUDIO_TYPES = {"htsat": "clap_audio_model", "cnn14": "cnn14"}
_TEXT_TYPES = {"roberta": "roberta", "bert": "bert", "clip": "clip_text_model"}


def untrained_model(
    audio: AudioTowerName,
    text: TextTowerName,
    *,
    projection_dim: int = 512,
    audio_sizes: Mapping[str, Any] | None = None,
    text_sizes: Mapping[str, Any] | None = None,
) -> Clap:
    """A model of these two towers with random weights; what isn't said of their sizes is as in transformers' configs.

    HTSAT beside RoBERTa is transformers' own `ClapModel`, all else a `DualEncoder`. Raises `ModelError` for sizes that
    a tower doesn't know, or can't have.
    """
    audio_config = _sizes(audio, audio_sizes or {}, _AUDIO_TYPES[audio])
    text_config = _sizes(text, text_sizes or {}, _TEXT_TYPES[text])
    try:
        if projection_dim < 1:
            raise ValueError(f"projection_dim is {projection_dim}")
        if (audio, text) == ("htsat", "roberta"):
            del audio_config["model_type"], text_config["model_type"]
            config = ClapConfig(audio_config=audio_config, text_config=text_config, projection_dim=projection_dim)
            model = ClapModel(config)
        else:
            model = DualEncoder(DualEncoderConfig(audio_config, text_config, projection_dim))
        _go_through(model)
    except Exception as error:  # of any class: a config's, a layer's, a product's
        raise ModelError(f"A model of {audio} and {text} can't have these sizes: {error}.") from error
    return model


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


def _sizes(tower: str, given: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The tower's config as given, and what follows from it; transformers would pass over names it doesn't know."""
    config = (AUDIO_TOWERS | TEXT_TOWERS)[model_type][0]
    of_any = inspect.signature(PretrainedConfig).parameters.keys() | {"others"}
    known = inspect.signature(config).parameters.keys() - of_any
    if unknown := sorted(given.keys() - known):
        raise ModelError(f"Tower {tower} has no size {unknown[0]}: write some of {', '.join(sorted(known))}.")
    derived: dict[str, Any] = {}
    if tower == "htsat" and {"patch_embeds_hidden_size", "depths"} & given.keys():
        usual = config()
        first = given.get("patch_embeds_hidden_size", usual.patch_embeds_hidden_size)
        derived["hidden_size"] = first << (len(given.get("depths", usual.depths)) - 1)
    return {**derived, **given, "model_type": model_type}


def _go_through(model: Clap) -> None:
    """Raises, whatever it is, where a window or a text can't go through a tower."""
    training = model.training
    model.eval()
    with torch.no_grad():
        model.get_audio_features(
            input_features=torch.zeros(1, 4 if model.config.audio_config.enable_fusion else 1, NUM_FRAMES, NUM_MELS),
            is_longer=torch.ones(1, 1, dtype=torch.bool),
        )
        tokens = torch.full((1, max_tokens(model)), model.config.text_config.vocab_size - 1)
        model.get_text_features(input_ids=tokens)
    model.train(training)


def _be_quiet() -> None:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
