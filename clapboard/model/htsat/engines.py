"""The engine that computes the audio tower: the fastest one that is installed and gives the reference's vectors."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch.nn import functional

from clapboard.errors import ModelError
from clapboard.model.htsat.tower import Htsat
from clapboard.model.tower_output import TowerOutput

Engine = Literal["auto", "openvino", "torch", "reference"]
"""`torch` is our own forward pass, `reference` that of transformers."""

MAX_DISTANCE = 1e-5
"""In float32: how far a vector may be off the reference's, as a part of its length. Measured: 4e-7."""

MIN_COSINE = 0.9995
"""In bfloat16: the least cosine to the reference's vector in float32. Measured: 0.9999 and more; less is a fault."""

MIN_INT8_COSINE = 0.95
"""In int8 the same, for windows like those that were calibrated on. Measured: 0.998 and more; less is a fault."""

# What libraries raise if they don't fit the processor, the model or each other.
_ENGINE_ERRORS = (RuntimeError, ImportError, AttributeError, OSError, TypeError, ValueError)

log = logging.getLogger(__name__)


class AudioTower(Protocol):
    """Log-mel `[B, 1001, 64]` → pooled `[B, C]` float32, and frames `[B, T, C]`. `engine` computes it.

    Fused checkpoints also take four mels `[B, 4, 1001, 64]`, whose local ones count where `is_longer` `[B]` is true.
    """

    engine: str

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None, /) -> torch.Tensor:
        """The pooled vectors. Each row depends on its own features alone."""

    def with_frames(self, features: torch.Tensor, is_longer: torch.Tensor | None = None, /) -> TowerOutput:
        """The same pooled vectors, and the frames of the same pass."""


@runtime_checkable
class HasThreads(Protocol):
    """A tower that computes in threads of its own."""

    num_threads: int


def load_tower(
    reference: torch.nn.Module, dtype: torch.dtype, probe: torch.Tensor, engine: Engine = "auto"
) -> AudioTower:
    """The tower computed by an engine, with the parameters that transformers' `reference` has now.

    Every engine but `reference` is first checked against the reference on `probe`, log-mel `[B, 1001, 64]`. With `auto`
    one that disagrees or fails is skipped for the next slower one. Raises `ModelError` if a named engine can't be used.
    """
    candidates = _by_speed(probe.device) if engine == "auto" else [engine]
    for name in candidates:
        try:
            tower = _checked_tower(name, reference, dtype, probe)
        except ModelError as error:
            if name == candidates[-1]:
                raise
            log.warning("a slower engine is used: %s", error)
            log.debug("engine %s failed", name, exc_info=error)
        else:
            break
    return tower


def load_int8_tower(reference: torch.nn.Module, model_file: Path, probe: torch.Tensor, engine: Engine) -> AudioTower:
    """The tower in int8 of a calibration's `model_file`, checked against the reference on the calibration's `probe`.

    Raises `ModelError` if another engine is named, or this one can't be used or gives vectors too far off.
    """
    if engine not in {"auto", "openvino"}:
        raise ModelError(f"Engine {engine} doesn't compute int8: set CLAPBOARD_ENGINE to auto.")
    return _checked_tower("openvino", reference, torch.int8, probe, model_file)


def engine_reason(engine: Engine, tower: AudioTower, device: torch.device) -> str:
    """Why `load_tower` computes the tower by that engine, in words."""
    if engine != "auto":
        return "as CLAPBOARD_ENGINE says"
    if device.type == "cpu" and not _can_use_openvino(device):
        return "as the faster one for CPUs, the extra `openvino`, isn't installed"
    is_fastest = tower.engine == _by_speed(device)[0]
    return "the fastest" if is_fastest else "the fastest that agrees with the reference"


class ReferenceTower:
    """transformers' own forward pass, by autocast if `dtype` isn't float32."""

    engine = "reference"

    def __init__(self, reference: torch.nn.Module, dtype: torch.dtype) -> None:
        self._reference: Any = reference
        self._dtype = dtype

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]`, or four mels `[B, 4, 1001, 64]` → pooled `[B, C]` float32."""
        return self.with_frames(features, is_longer).pooled

    def with_frames(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> TowerOutput:
        """The same with transformers' `last_hidden_state` `[B, C, F, T]`, averaged over frequency, as frames."""
        num_channels = 4 if self._reference.config.enable_fusion else 1
        channels = features if features.ndim == 4 else features[:, None].expand(-1, num_channels, -1, -1)
        if is_longer is None:
            is_longer = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        with torch.autocast(features.device.type, self._dtype, enabled=self._dtype != torch.float32):
            output = self._reference(channels, is_longer=is_longer[:, None])
        return TowerOutput(output.pooler_output.float(), output.last_hidden_state.float().mean(dim=2).transpose(1, 2))


def _by_speed(device: torch.device) -> list[Engine]:
    return ["openvino", "torch", "reference"] if _can_use_openvino(device) else ["torch", "reference"]


def _can_use_openvino(device: torch.device) -> bool:
    return device.type == "cpu" and importlib.util.find_spec("openvino") is not None


def _checked_tower(
    engine: Engine,
    reference: torch.nn.Module,
    dtype: torch.dtype,
    probe: torch.Tensor,
    model_file: Path | None = None,
) -> AudioTower:
    """The engine's tower. Raises `ModelError` if it can't be made or run, or gives other vectors than the reference."""
    if engine == "reference":
        return ReferenceTower(reference, dtype)
    if engine == "openvino" and not _can_use_openvino(probe.device):
        raise ModelError(
            "Engine openvino is for CPUs and needs `pip install 'clapboard[openvino]'`: set CLAPBOARD_ENGINE to auto."
        )
    inputs = _probe_inputs(reference, probe)
    try:
        tower = _new_tower(engine, reference, dtype, model_file)
        with torch.inference_mode():
            output = tower.with_frames(*inputs)
    except _ENGINE_ERRORS as error:
        number_format = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"Engine {engine} can't compute this model in {number_format} on this machine ({type(error).__name__}): "
            "set CLAPBOARD_ENGINE to auto."
        ) from error
    with torch.inference_mode():
        expected = ReferenceTower(reference, torch.float32).with_frames(*inputs)
    _require_agreement(engine, dtype, output.pooled, expected.pooled)
    _require_agreement(engine, dtype, output.frames, expected.frames, "frames")
    return tower


def _new_tower(engine: Engine, reference: torch.nn.Module, dtype: torch.dtype, model_file: Path | None) -> AudioTower:
    if engine == "torch":
        return Htsat(reference, dtype).frozen()
    from clapboard.model.htsat.openvino import OpenVinoTower

    return OpenVinoTower(reference, dtype, num_threads=torch.get_num_threads(), model_file=model_file)


def _probe_inputs(reference: Any, probe: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The features and `is_longer` to check an engine with.

    For fused checkpoints the probe's windows become global mels, every other one «longer», each with three other
    windows of the probe, shifted in time, as its local mels.
    """
    if not reference.config.enable_fusion:
        return probe, None
    four = torch.stack([probe.roll((places, 100 * places), (0, 1)) for places in range(4)], dim=1)  # [B, 4, 1001, 64]
    return four, torch.arange(len(probe), device=probe.device) % 2 == 0


def _require_agreement(
    engine: Engine, dtype: torch.dtype, vectors: torch.Tensor, expected: torch.Tensor, noun: str = "vectors"
) -> None:
    if dtype == torch.float32:
        distance = ((vectors - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()
        agrees, figure = distance <= MAX_DISTANCE, f"{distance:.1e} of their length"
    else:
        cosine = functional.cosine_similarity(vectors, expected, dim=-1).min().item()
        least = MIN_INT8_COSINE if dtype == torch.int8 else MIN_COSINE
        agrees, figure = cosine >= least, f"a cosine of {cosine:.5f}"
    if not agrees:
        remedy = "set CLAPBOARD_ENGINE to auto or reference"
        if dtype == torch.int8:
            remedy = "run `clapboard calibrate` on more recordings, or set CLAPBOARD_DTYPE to auto"
        raise ModelError(f"Engine {engine} gives other {noun} than the reference for this model ({figure}): {remedy}.")
