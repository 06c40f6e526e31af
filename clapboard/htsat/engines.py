"""Which forward pass serves: the fastest that is installed and gives the reference's vectors."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch.nn import functional

from clapboard.errors import ModelError
from clapboard.htsat.tower import Htsat

Engine = Literal["auto", "openvino", "torch", "reference"]
"""`torch` is ours, `reference` is transformers' own."""


class AudioTower(Protocol):
    """Log-mel `[B, 1001, 64]` → pooled `[B, C]` float32.

    Or, for fused checkpoints, four mels `[B, 4, 1001, 64]`, of which the local ones count where `is_longer` `[B]`.
    """

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None, /) -> torch.Tensor:
        """Each row depends on its own features alone."""


@runtime_checkable
class HasThreads(Protocol):
    """A tower that computes on threads of its own."""

    num_threads: int


MAX_DISTANCE = 1e-5
"""In float32: by how much of its length a vector may be off. Measured: 4e-7."""

MIN_COSINE = 0.9995
"""In bfloat16, to the reference's vector in float32. A guard against what is broken: measured are 0.9999 and more."""

log = logging.getLogger(__name__)


def load_tower(
    reference: torch.nn.Module, dtype: torch.dtype, probe: torch.Tensor, engine: Engine = "auto"
) -> AudioTower:
    """The tower of an engine, with the parameters of transformers' `reference` as they are now.

    Every tower but the reference has to agree with it on `probe`, log-mel `[B, 1001, 64]`. `auto` takes the fastest
    that does. Raises `ModelError` if a named engine can't be used.
    """
    candidates = _by_speed(probe.device) if engine == "auto" else [engine]
    for name in candidates:
        try:
            tower = _checked(name, reference, dtype, probe)
        except ModelError as error:
            if name == candidates[-1]:
                raise
            log.warning("a slower engine is used: %s", error)
        else:
            break
    log.info("the audio tower is computed by engine %s in %s", name, dtype)
    return tower


def _by_speed(device: torch.device) -> list[Engine]:
    return ["openvino", "torch", "reference"] if _can_use_openvino(device) else ["torch", "reference"]


class ReferenceTower:
    """transformers' own forward pass, by autocast where `dtype` isn't float32."""

    def __init__(self, reference: torch.nn.Module, dtype: torch.dtype) -> None:
        self._reference: Any = reference
        self._dtype = dtype

    def __call__(self, features: torch.Tensor, is_longer: torch.Tensor | None = None) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]`, or four mels `[B, 4, 1001, 64]` → pooled `[B, C]` float32."""
        num_channels = 4 if self._reference.config.enable_fusion else 1
        channels = features if features.ndim == 4 else features[:, None].expand(-1, num_channels, -1, -1)
        if is_longer is None:
            is_longer = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        with torch.autocast(features.device.type, self._dtype, enabled=self._dtype != torch.float32):
            pooled: torch.Tensor = self._reference(channels, is_longer=is_longer[:, None]).pooler_output
        return pooled.float()


def _can_use_openvino(device: torch.device) -> bool:
    return device.type == "cpu" and importlib.util.find_spec("openvino") is not None


def _checked(engine: str, reference: torch.nn.Module, dtype: torch.dtype, probe: torch.Tensor) -> AudioTower:
    tower = _built(engine, reference, dtype, probe.device)
    if engine == "reference":
        return tower
    with torch.inference_mode():
        seen = _seen(reference, probe)
        found, expected = tower(*seen), ReferenceTower(reference, torch.float32)(*seen)
    if dtype == torch.float32:
        distance = ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()
        agrees, figure = distance <= MAX_DISTANCE, f"{distance:.1e} of their length"
    else:
        cosine = functional.cosine_similarity(found, expected).min().item()
        agrees, figure = cosine >= MIN_COSINE, f"a cosine of {cosine:.5f}"
    if not agrees:
        raise ModelError(
            f"Engine {engine} gives other vectors than the reference for this model ({figure}): set CLAPBOARD_ENGINE "
            "to auto or reference."
        )
    return tower


def _seen(reference: Any, probe: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The probe; for fused checkpoints as the global mels, each beside three others, and every other one «longer»."""
    if not reference.config.enable_fusion:
        return probe, None
    four = torch.stack([probe.roll((places, 100 * places), (0, 1)) for places in range(4)], dim=1)  # [B, 4, 1001, 64]
    return four, torch.arange(len(probe), device=probe.device) % 2 == 0


def _built(engine: str, reference: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> AudioTower:
    if engine == "reference":
        return ReferenceTower(reference, dtype)
    if engine == "torch":
        return Htsat(reference, dtype).frozen()
    if not _can_use_openvino(device):
        raise ModelError(
            "Engine openvino is for CPUs and needs `pip install 'clapboard[openvino]'`: set CLAPBOARD_ENGINE to auto."
        )
    from clapboard.htsat.openvino import OpenVinoTower

    try:
        return OpenVinoTower(reference, dtype, num_threads=torch.get_num_threads())
    except RuntimeError as error:  # its own, for whatever it can't compile
        raise ModelError("Engine openvino can't compile this model: set CLAPBOARD_ENGINE to torch.") from error
