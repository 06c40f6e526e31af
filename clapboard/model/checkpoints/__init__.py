"""Checkpoints in transformers' layout: their files and weights.

Nothing else outside training imports transformers.
"""

from clapboard.model.checkpoints.dual_encoder import Cnn14Config, DualEncoder, DualEncoderConfig
from clapboard.model.checkpoints.files import (
    FEATURE_FILES,
    MINI,
    RECIPE,
    checkpoint_folder,
    fingerprint,
    load_log_mel,
    load_tokenizer,
    tokenizer_folder,
)
from clapboard.model.checkpoints.weights import (
    AudioTowerName,
    Clap,
    TextTowerName,
    load_model,
    max_tokens,
    save_model,
    untrained_model,
)

__all__ = [
    "FEATURE_FILES",
    "MINI",
    "RECIPE",
    "AudioTowerName",
    "Clap",
    "Cnn14Config",
    "DualEncoder",
    "DualEncoderConfig",
    "TextTowerName",
    "checkpoint_folder",
    "fingerprint",
    "load_log_mel",
    "load_model",
    "load_tokenizer",
    "max_tokens",
    "save_model",
    "tokenizer_folder",
    "untrained_model",
]
