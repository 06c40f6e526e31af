"""A LAION checkpoint (`.pt`) → a folder that transformers and `ClapEncoder` load.

The folder appears only after it has been loaded as it will be served, and has given the original's embeddings.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clapboard.audio.log_mel import NUM_FRAMES, NUM_MELS
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES
from clapboard.errors import ModelError, SettingsError
from clapboard.model.checkpoints import Clap, load_tokenizer, max_tokens, save_model, tokenizer_folder, untrained_model
from clapboard.model.checkpoints.files import TOKENIZER_FILES
from clapboard.model.clap import ClapEncoder
from clapboard.model.laion.checkpoint import State, Towers, read_checkpoint, towers_of
from clapboard.model.laion.names import fill
from clapboard.model.laion.original_audio import audio_embeddings, log_mel
from clapboard.model.laion.original_text import text_embedding

MAX_DISTANCE = 1e-4
"""How far an embedding may be off the original's, as a part of its length."""

_DEFAULT_TOKENIZERS = {
    "roberta": "roberta-base",
    "bert": "bert-base-uncased",
    "clip": "openai/clip-vit-base-patch32",
}
_TEXTS = ("a dog", "This is a sound of rain.", "a clock ticks while a crowd is cheering, far away")


@dataclass(frozen=True)
class Conversion:
    """What was converted, and how far its embeddings are off the original's, as a part of their length."""

    audio: str
    text: str
    is_fused: bool
    dim: int
    num_parameters: int
    audio_distance: float
    text_distance: float
    unneeded: tuple[str, ...]


def convert(file: Path, out: Path, *, tokenizer: str | None = None) -> Conversion:
    """Write the checkpoint `file` into the new folder `out`, with the tokenizer of a folder or hub id.

    The default tokenizer is the one with which the text tower was pretrained, from the hub. Raises `SettingsError` if
    `out` exists or can't be written, and `ModelError` if something can't be read, isn't a LAION-CLAP, has weights too
    many or too few, or if the result gives other embeddings than the original. Then `out` isn't written.
    """
    if out.exists():
        raise SettingsError(f"{out} is there already: name a folder that isn't, or delete it first.")
    state = read_checkpoint(file)
    towers = towers_of(file.name, state)
    clap = untrained_model(
        towers.audio,
        towers.text,
        projection_dim=towers.projection_dim,
        audio_sizes=towers.audio_sizes,
        text_sizes=towers.text_sizes,
    )
    unneeded = fill(clap, file.name, state, towers)
    source = tokenizer_folder(tokenizer or _DEFAULT_TOKENIZERS[towers.text])
    building = _new_folder(out.with_name(f"{out.name}.building"))
    try:
        _write(clap, source, building)
        distances = check(building, file.name, state, towers)
        building.replace(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    num_parameters = sum(parameter.numel() for parameter in clap.parameters())
    kind = towers.audio, towers.text, towers.is_fused, towers.projection_dim
    return Conversion(*kind, num_parameters, *distances, tuple(unneeded))


def check(folder: Path, name: str, state: State, towers: Towers) -> tuple[float, float]:
    """How far a folder's audio and text embeddings are off the original's at most, as parts of their length.

    The folder is loaded as it will be served. Raises `ModelError`, which calls the checkpoint `name`, if they are too
    far off.
    """
    encoder = ClapEncoder.load(str(folder), device="cpu", dtype="float32", engine="torch")
    tokenizer = load_tokenizer(str(folder), folder)
    with torch.inference_mode():
        distances = {
            "audio": _audio_distance(encoder, state, towers),
            "text": _text_distance(encoder, tokenizer, state, towers),
        }
    for kind, distance in distances.items():
        if not distance <= MAX_DISTANCE:
            raise ModelError(
                f"Checkpoint {name} was not converted: its {kind} embeddings would be off by {distance:.1e} of their "
                "length, so it differs from LAION's CLAP in something that its weights don't say."
            )
    return distances["audio"], distances["text"]


def _new_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise SettingsError(f"Folder {folder} can't be written ({error.strerror}): name another folder.") from None
    return folder


def _write(clap: Clap, source: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    _check_tokenizer(load_tokenizer(str(source), folder), str(source), clap)
    save_model(clap, folder)


def _check_tokenizer(tokenizer: Any, source: str, clap: Clap) -> None:
    config = clap.config.text_config
    if config.model_type == "clip_text_model":
        fits = tokenizer.eos_token_id == config.eos_token_id
    else:
        fits = tokenizer.pad_token_id == config.pad_token_id
    if not fits or len(tokenizer) > config.vocab_size:
        raise ModelError(f"Tokenizer {source} is not the checkpoint's: name another with --tokenizer.")


def _audio_distance(encoder: ClapEncoder, state: State, towers: Towers) -> float:
    waveforms = _unlike_windows()
    served = torch.from_numpy(encoder.embed_windows(waveforms))
    original = audio_embeddings(state, towers, log_mel(state, towers, torch.from_numpy(waveforms))[:, None])
    distance = _distance(served, original)
    if not towers.is_fused:
        return distance
    parts = torch.randn(2, 4, NUM_FRAMES, NUM_MELS, generator=torch.Generator().manual_seed(0)) * 20 - 40
    are_longer = torch.ones(len(parts), 1, dtype=torch.bool)
    fused = encoder.model.get_audio_features(input_features=parts, is_longer=are_longer).pooler_output
    return max(distance, _distance(fused, audio_embeddings(state, towers, parts, is_longer=True)))


def _text_distance(encoder: ClapEncoder, tokenizer: Any, state: State, towers: Towers) -> float:
    served = torch.from_numpy(encoder.embed_texts(_TEXTS))
    longest = max_tokens(encoder.model)
    tokens = [tokenizer(text, truncation=True, max_length=longest)["input_ids"] for text in _TEXTS]
    original = [text_embedding(state, towers, ids) for ids in tokens]
    return _distance(served, torch.cat(original))


def _distance(served: torch.Tensor, original: torch.Tensor) -> float:
    return (served - original).norm(dim=-1).max().item()


def _unlike_windows() -> npt.NDArray[np.float32]:
    """Two windows `[2, 480000]`: loud white noise, and a rising tone over soft noise.

    No band is near silence, where the original's float32 filters are less precise than ours.
    """
    noise = np.random.default_rng(0).standard_normal((2, WINDOW_SAMPLES)) * [[0.2], [0.01]]
    time_s = np.arange(WINDOW_SAMPLES) / SAMPLE_RATE
    noise[1] += 0.5 * np.sin(2 * np.pi * (100 + 300 * time_s) * time_s)
    return noise.astype(np.float32)
