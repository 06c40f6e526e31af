"""A run's state between epochs, and the candidate's folder: each is written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clapboard.clap import ClapEncoder
from clapboard.pretrained import FEATURE_FILES, Clap, checkpoint_folder, save_model

MANIFEST, CONFIG = "manifest.json", "finetune.json"
_WRITTEN_ANEW = frozenset({"config.json", "model.safetensors.index.json", MANIFEST, CONFIG})


def save_state(file: Path, state: Mapping[str, Any]) -> None:
    """Writes the state to the disk, in place of the one before."""
    building = file.with_suffix(".building")
    with building.open("wb") as stream:
        torch.save(dict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    building.replace(file)


def load_state(file: Path, key: str) -> dict[str, Any] | None:
    """The state that was saved last, if there is one and it belongs to the run with this key."""
    if not file.is_file():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state if state["key"] == key else None


def write_candidate(
    folder: Path, encoder: ClapEncoder, config: Mapping[str, Any], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the encoder's weights as they are now and its base's other files: a folder that `ClapEncoder.load` takes.

    It is loaded once, as it will be served; `manifest.json`, with the version found, comes last and means complete.
    Returns that manifest.
    """
    building = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    encoder.model.save_pretrained(building)
    for file in checkpoint_folder(encoder.identity.model).iterdir():
        if file.suffix in {".json", ".txt"} and file.name not in _WRITTEN_ANEW:
            shutil.copyfile(file, building / file.name)
    _write_json(building / CONFIG, config)
    served = ClapEncoder.load(str(building), device="cpu", engine="reference", fusion=encoder.fusion)
    complete = dict(manifest) | {"encoder_version": served.identity.version}
    _write_json(building / MANIFEST, complete)
    _put_in_place(building, folder)
    return complete


def publish(
    model: Clap, tokenizer: Any, folder: Path, *, dtype: torch.dtype = torch.float32, base: Path | None = None
) -> None:
    """Writes the folder that transformers and `ClapEncoder` load, in place of the one before: whole or not at all.

    What `base`, the checkpoint's folder that training went on from, says of features is taken over.
    """
    building = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    save_model(copy.to(dtype), building)
    tokenizer.save_pretrained(building)
    for name in FEATURE_FILES:
        if base and (base / name).is_file():
            shutil.copyfile(base / name, building / name)
    _put_in_place(building, folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete candidate, or None if the folder holds none."""
    file = folder / MANIFEST
    content: dict[str, Any] | None = json.loads(file.read_text("utf-8")) if file.is_file() else None
    return content


def _put_in_place(building: Path, folder: Path) -> None:
    """The folder that is complete, in place of the one before, which goes only when this one is on the disk."""
    for file in building.iterdir():
        _to_disk(file)
    before = folder.with_name(f"{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.replace(before)
    building.replace(folder)
    _to_disk(folder.parent)
    shutil.rmtree(before, ignore_errors=True)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
