"""Writes a run's state between epochs, and the folder of a finished checkpoint. Both are written atomically."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clapboard.model.checkpoints import FEATURE_FILES, Clap, checkpoint_folder, save_model
from clapboard.model.clap import ClapEncoder
from clapboard.model.frame_scores import FRAME_SCORES_FILE

MANIFEST, CONFIG = "manifest.json", "finetune.json"
FRAME_SCORER = "frame_scorer"
"""Of a model in training, the part that becomes the published checkpoint's frame scores, if it learns frames."""

_NOT_COPIED = frozenset({"config.json", "model.safetensors.index.json", MANIFEST, CONFIG})


def save_state(file: Path, state: Mapping[str, Any]) -> None:
    """Writes the state to disk, replacing the previous one."""
    building = file.with_suffix(".building")
    with building.open("wb") as stream:
        torch.save(dict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    building.replace(file)


def load_state(file: Path, key: str) -> dict[str, Any] | None:
    """The last saved state; None if there is none, or if it belongs to a run with another key."""
    if not file.is_file():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state if state["key"] == key else None


def write_candidate(
    folder: Path, encoder: ClapEncoder, config: Mapping[str, Any], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the encoder's current weights and its base's other files to a folder that `ClapEncoder.load` accepts.

    The folder is loaded once as it will be served, to learn its version. `manifest.json`, which holds that version, is
    written last: a folder that has it is complete. Returns that manifest.
    """
    building = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    encoder.model.save_pretrained(building)
    for file in checkpoint_folder(encoder.identity.model).iterdir():
        if (file.suffix in {".json", ".txt"} and file.name not in _NOT_COPIED) or file.name == FRAME_SCORES_FILE:
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
    """Writes a folder that transformers and `ClapEncoder` load, replacing the previous one atomically.

    The feature extractor's files are copied from `base`, the checkpoint that training started from, if there is one.
    """
    building = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    copy = type(model)(model.config)
    copy.load_state_dict({name: value for name, value in model.state_dict().items() if not _is_for_frames(name)})
    save_model(copy.to(dtype), building)
    if scorer := getattr(model, FRAME_SCORER, None):
        scorer.frame_scores().write(building)
    tokenizer.save_pretrained(building)
    for name in FEATURE_FILES:
        if base and (base / name).is_file():
            shutil.copyfile(base / name, building / name)
    _put_in_place(building, folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete candidate; None if the folder holds none."""
    file = folder / MANIFEST
    content: dict[str, Any] | None = json.loads(file.read_text("utf-8")) if file.is_file() else None
    return content


def _is_for_frames(weight: str) -> bool:
    return weight.startswith(f"{FRAME_SCORER}.")


def _put_in_place(building: Path, folder: Path) -> None:
    """Renames `building` to `folder`; the previous folder is deleted only once the new one is on disk."""
    for file in building.iterdir():
        _flush(file)
    before = folder.with_name(f"{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.replace(before)
    building.replace(folder)
    _flush(folder.parent)
    shutil.rmtree(before, ignore_errors=True)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _flush(path: Path) -> None:
    """Waits until the file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
