"""A checkpoint's folder: where it is, its tokenizer, its features and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import AutoTokenizer

from clapboard.audio.log_mel import FRAME_SAMPLES, HOP_SAMPLES, NUM_MELS, LogMel
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_S
from clapboard.errors import ModelError

MINI = "mini"
FEATURE_FILES = ("preprocessor_config.json", "processor_config.json")
"""The files that say how features are made: transformers 4's name, and 5's."""

RECIPE = "1"
"""Part of every encoder version; raised by one when windows, features or pooling change what an embedding is."""

_MINI_FOLDER = Path(__file__).parents[2] / MINI
_HUB_FILES = ("*.json", "*.safetensors", "*.txt")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
_RECORDS = frozenset(
    {"finetune.json", "manifest.json", "snapshot.json"}
)  # of its finetuning: they don't decide an embedding
_FIXED_RECIPE = {
    "sampling_rate": SAMPLE_RATE,
    "max_length_s": WINDOW_S,
    "fft_window_size": FRAME_SAMPLES,
    "hop_length": HOP_SAMPLES,
    "feature_size": NUM_MELS,
}


def checkpoint_folder(model: str) -> Path:
    """The local folder of a checkpoint: `mini`, a folder, or a hub id, which is downloaded if it isn't here yet.

    Raises `ModelError` if the folder doesn't exist or the download fails.
    """
    if model == MINI:
        return _MINI_FOLDER
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")):
        raise ModelError(f"Model folder {model} doesn't exist: check CLAPBOARD_MODEL or --model.")
    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"Model {model} is not on this machine and can't be fetched from the hub: copy its folder here and set "
            "CLAPBOARD_MODEL (or --model) to that folder, or use the embedded model with CLAPBOARD_MODEL=mini."
        ) from error


def tokenizer_folder(name: str) -> Path:
    """The local folder of a tokenizer: a folder or a hub id, as in `checkpoint_folder`.

    Raises `ModelError` if the download fails.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(name, allow_patterns=list(TOKENIZER_FILES)))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"Tokenizer {name} is not on this machine and can't be fetched from the hub: copy its folder here and name "
            "that folder with --tokenizer."
        ) from error


def load_tokenizer(model: str, folder: Path) -> Any:
    """The checkpoint's tokenizer. Raises `ModelError` if there is none, or it has no padding token."""
    try:
        # Without these files, transformers would make up a tokenizer that knows no words.
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            for name in ("vocab.json", "merges.txt"):
                (folder / name).read_bytes()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of any class, by transformers and what it calls
        raise ModelError(f"Model {model} has no tokenizer that can be read: copy all its files.") from error
    if tokenizer.pad_token_id is None:
        raise ModelError(f"The tokenizer of {model} has no token to pad texts with: choose another one.")
    return tokenizer


def load_log_mel(model: str, clap: Any, folder: Path) -> LogMel:
    """The features that the checkpoint was trained on; CLAP's usual 50–14,000 Hz if it doesn't say.

    Raises `ModelError` if these aren't CLAP's log-mels.
    """
    recipe: dict[str, Any] = {}
    for name in FEATURE_FILES:
        if (folder / name).is_file():
            content = read_json(model, folder / name)
            recipe |= content.get("feature_extractor", content)
    for name, ours in _FIXED_RECIPE.items():
        if recipe.get(name, ours) != ours:
            raise ModelError(
                f"Model {model} asks for {name} {recipe[name]}, where CLAP has {ours}: use a CLAP checkpoint."
            )
    try:
        min_hz, max_hz = float(recipe.get("frequency_min", 50.0)), float(recipe.get("frequency_max", 14_000.0))
    except (TypeError, ValueError) as error:
        raise ModelError(f"Model {model} can't be read: its feature extractor's frequencies are no numbers.") from error
    return LogMel("htk" if clap.config.audio_config.enable_fusion else "slaney", min_hz=min_hz, max_hz=max_hz)


def fingerprint(folder: Path, *, fusion: bool = False) -> str:
    """12 hex digits over all that decides an embedding: the folder's files, and whether recordings are fused."""
    digest = hashlib.sha256((RECIPE + (" fusion" if fusion else "")).encode())
    for file in sorted(folder.iterdir()):
        if file.suffix in {".json", ".safetensors", ".txt"} and file.name not in _RECORDS and file.is_file():
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]


def read_json(model: str, file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `ModelError`, which calls the checkpoint `model`, if it can't be read."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Model {model} can't be read: its {file.name} is damaged.") from error
    if not isinstance(content, dict):
        raise ModelError(f"Model {model} can't be read: its {file.name} is damaged.")
    return content
