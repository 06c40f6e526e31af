"""A calibration on disk: the tower of one encoder in int8, and what it was made from.

A folder holds one:

    <content>.xml, <content>.bin   OpenVINO's model
    <content>.npy                  mean log-mel `[1, 1001, 64]` of all windows, by which it is checked when it is loaded
    manifest.json                  the encoder, the files' checksum, what was measured; written last

No recording is in it, so that there is nothing in it to forget. Two calibrations of an encoder give different vectors,
so the content's hash is part of the embeddings' key.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from clapboard.errors import ModelError

RECIPE = 2
"""Raised by one when what is made of the same audio changes; calibrations of another recipe have to be made anew."""

_REMEDY = "run `clapboard calibrate`, or set CLAPBOARD_DTYPE to auto."
_MANIFEST = "manifest.json"
_SUFFIXES = (".xml", ".bin", ".npy")


@dataclass(frozen=True)
class Calibration:
    """What the manifest says. The cosines are those of windows that weren't calibrated on to themselves in float32."""

    encoder_version: str
    content: str
    num_windows: int
    mean_cosine: float
    least_cosine: float
    recipe: int = RECIPE

    @property
    def dtype(self) -> str:
        """The name of the number format in keys: it tells this calibration from others."""
        return f"int8-{self.content}"

    @classmethod
    def read(cls, folder: Path | None, model: str, encoder_version: str) -> Self:
        """The folder's calibration. Raises `ModelError`, if it is missing, stale, or damaged."""
        try:
            found = cls(**json.loads((_existing(folder) / _MANIFEST).read_text("utf-8")))
        except FileNotFoundError:
            raise ModelError(f"Model {model} has not been calibrated for int8: {_REMEDY}") from None
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"The int8 calibration of {model} can't be read: {_REMEDY}") from error
        if found.encoder_version != encoder_version:
            raise ModelError(f"Model {model} has changed since it was calibrated for int8: {_REMEDY}")
        if found.recipe != RECIPE:
            raise ModelError(f"The int8 calibration of {model} is of another release: {_REMEDY}")
        if _content(_existing(folder), found.content) != found.content:
            raise ModelError(f"The int8 calibration of {model} is damaged: {_REMEDY}")
        return found

    def model_file(self, folder: Path) -> Path:
        """OpenVINO's model in the calibration's folder."""
        return folder / f"{self.content}.xml"

    def probe(self, folder: Path) -> torch.Tensor:
        """The mean log-mel `[1, 1001, 64]` of the windows that were calibrated on."""
        return torch.from_numpy(np.load(folder / f"{self.content}.npy"))

    def publish(self, folder: Path, built: Path) -> None:
        """Copy the model `built` and its probe into the folder, write the manifest, then remove what was before."""
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in _SUFFIXES:
            target = folder / f"{self.content}{suffix}"
            shutil.copyfile(built.with_suffix(suffix), target)
            with target.open("rb") as file:
                os.fsync(file.fileno())
        draft = folder / f"{_MANIFEST}.new"
        with draft.open("w", encoding="utf-8") as text:
            json.dump(asdict(self), text)
            text.flush()
            os.fsync(text.fileno())
        draft.replace(folder / _MANIFEST)
        for path in folder.iterdir():
            if path.suffix in _SUFFIXES and path.stem != self.content:
                path.unlink()


def content_of(model_file: Path) -> str:
    """8 hex digits over OpenVINO's model, its weights, and the probe."""
    digest = hashlib.sha256()
    for suffix in _SUFFIXES:
        with model_file.with_suffix(suffix).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:8]


def _content(folder: Path, name: str) -> str:
    try:
        return content_of(folder / f"{name}.xml")
    except OSError:
        return ""


def _existing(folder: Path | None) -> Path:
    if folder is None:
        raise FileNotFoundError
    return folder
