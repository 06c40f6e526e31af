"""A checkpoint's weights: read from a folder, written to one, or new random ones for the towers that are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors.torch import load_file
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel
from transformers import initialization as init
from transformers.utils import logging as transformers_logging

from clapboard.audio.log_mel import NUM_FRAMES, NUM_MELS
from clapboard.errors import ModelError
from clapboard.model.checkpoints.dual_encoder import DualEncoder, DualEncoderConfig
from clapboard.model.checkpoints.files import read_json
from clapboard.model.checkpoints.sizes import require_memory, tower_sizes

Clap: TypeAlias = ClapModel | DualEncoder
"""What both have in common is in `dual_encoder`."""

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
    """A model of these two towers with random weights; sizes that aren't given are those of transformers' configs.

    HTSAT with RoBERTa is transformers' own `ClapModel`, all else a `DualEncoder`. Raises `ModelError` for sizes that a
    tower doesn't know, or can't have.
    """
    audio_config = tower_sizes(audio, audio_sizes or {}, _AUDIO_TYPES[audio])
    text_config = tower_sizes(text, text_sizes or {}, _TEXT_TYPES[text])
    require_memory(projection_dim, audio_config, text_config, _TEXT_TYPES[text])
    try:
        if (audio, text) == ("htsat", "roberta"):
            del audio_config["model_type"], text_config["model_type"]
            config = ClapConfig(audio_config=audio_config, text_config=text_config, projection_dim=projection_dim)
            model = ClapModel(config)
        else:
            model = DualEncoder(DualEncoderConfig(audio_config, text_config, projection_dim))
    except Exception as error:  # of any class, by a config or a layer
        raise _impossible("made", {audio: audio_sizes, text: text_sizes}) from error
    _try_towers(model, {audio: (audio_sizes, _embed_window), text: (text_sizes, _embed_text)})
    return model


def load_model(model: str, folder: Path) -> Clap:
    """The folder's model in float32. Raises `ModelError`, which calls it `model`, if it isn't a whole CLAP."""
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(f"Model {model} lacks config.json or safetensors weights: convert it with save_pretrained.")
    model_class = _CLASSES.get(str(read_json(model, folder / "config.json").get("model_type")))
    if model_class is None:
        raise ModelError(f"Model {model} is not a CLAP checkpoint: its config.json names another type.")
    _be_quiet()
    try:
        if loaded := _load_by_name(model_class, folder):
            return loaded
        loaded, report = model_class.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except ModelError as error:  # by a tower's config
        raise ModelError(f"Model {model} can't be read. {error}") from error
    except Exception as error:  # of any class, by transformers and the readers that it calls
        raise ModelError(f"Model {model} can't be read: its files are damaged or don't fit each other.") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ModelError(f"Model {model} lacks weights that its config asks for: it is damaged or no whole CLAP.")
    return loaded


def max_tokens(clap: Clap) -> int:
    """The most tokens that a text can have: RoBERTa counts positions from the one after padding's, others from 0."""
    config = clap.config.text_config
    longest: int = config.max_position_embeddings
    return longest - config.pad_token_id - 1 if config.model_type in {"roberta", "clap_text_model"} else longest


def save_model(clap: Clap, folder: Path) -> None:
    """Write weights (safetensors), config, and the feature extractor's file, which says how features are made.

    With the tokenizer's files, that is all that `ClapEncoder` and transformers load.
    """
    _be_quiet()
    clap.save_pretrained(folder)
    truncation = "fusion" if clap.config.audio_config.enable_fusion else "rand_trunc"
    ClapFeatureExtractor(frequency_min=50, truncation=truncation, padding="repeatpad").save_pretrained(folder)


def _load_by_name(model_class: type[Clap], folder: Path) -> Clap | None:
    """The model, if `model.safetensors` holds every weight under the model's own name and in its shape; else None.

    That is four times as fast as `from_pretrained`, which compiles the renaming rules of all transformers' models.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        return None
    config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = torch.float32
    with init.no_init_weights():
        model = model_class(config)
    weights, own = load_file(file), model.state_dict()
    if any(name not in weights or weights[name].shape != tensor.shape for name, tensor in own.items()):
        return None
    model.load_state_dict({name: weights[name] for name in own})
    return model.eval()


def _try_towers(model: Clap, towers: Mapping[str, tuple[Mapping[str, Any] | None, Callable[[Clap], None]]]) -> None:
    """Run each tower once. Raises `ModelError`, which names the tower's sizes, if one fails."""
    training = model.training
    model.eval()
    with torch.no_grad():
        for tower, (sizes, run) in towers.items():
            try:
                run(model)
            except Exception as error:  # of any class, by a layer or a product
                raise _impossible("used", {tower: sizes}) from error
    model.train(training)


def _impossible(participle: str, towers: Mapping[str, Mapping[str, Any] | None]) -> ModelError:
    """The error for sizes that fail although `sizes` has no rule against them: it names those that were given."""
    descriptions = " and ".join(
        f"{tower} with {', '.join(f'{name} {value}' for name, value in (sizes or {}).items()) or 'its usual sizes'}"
        for tower, sizes in towers.items()
    )
    return ModelError(
        f"A tower {descriptions} can't be {participle}: leave out one size after another to find the wrong one."
    )


def _embed_window(model: Clap) -> None:
    model.get_audio_features(
        input_features=torch.zeros(1, 4 if model.config.audio_config.enable_fusion else 1, NUM_FRAMES, NUM_MELS),
        is_longer=torch.ones(1, 1, dtype=torch.bool),
    )


def _embed_text(model: Clap) -> None:
    tokens = torch.full((1, max_tokens(model)), model.config.text_config.vocab_size - 1)
    model.get_text_features(input_ids=tokens)


def _be_quiet() -> None:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
