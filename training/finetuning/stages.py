"""The audio towers cut in two for finetuning, HTSAT between its stages and PANN-14 between its blocks."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Protocol

import torch

from clapboard.cnn14 import Cnn14
from clapboard.htsat import Htsat

Rung = Literal["projection", "stage4", "stages34", "all"]
"""What learns, by how many labels there are: the projection, the tower's last stage too, the last two too, or all."""

PROJECTION, STAGE_4, STAGE_3, BELOW = "projection", "stage 4", "stage 3", "below"

Parts = dict[str, dict[str, torch.nn.Parameter]]


class Stages(Protocol):
    """A tower whose first stages are frozen: what they give is kept, and goes through the others in every step."""

    @property
    def num_stages(self) -> int:
        """How many there are."""

    def lower(self, features: torch.Tensor, num_frozen: int) -> torch.Tensor:
        """Log-mel `[B, 1001, 64]` → what so many stages, one at least, make of it; of all of them, `[B, C]`."""

    def upper(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        """What `lower` gave, or log-mel where none is frozen → pooled `[B, C]` float32."""

    def learning_parts(self, rung: Rung) -> Parts:
        """The parameters that learn, by part."""


def stages_of(encoder: torch.nn.Module, dtype: torch.dtype) -> Stages:
    """The stages of a checkpoint's `audio_model.audio_encoder`, computed in `dtype`."""
    return PannStages(encoder, dtype) if isinstance(encoder, Cnn14) else HtsatStages(encoder, dtype)


def named(prefix: str, module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """A module's parameters by their names under a prefix."""
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}


class HtsatStages:
    """HTSAT by our forward pass; what lies between two stages is tokens `[B, T, C]`."""

    def __init__(self, encoder: Any, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._htsat = Htsat(encoder, dtype)
        self.num_stages = self._htsat.num_stages

    def lower(self, features: torch.Tensor, num_frozen: int) -> torch.Tensor:
        tokens = self._frozen.through(self._frozen.embed(self._frozen.patches(features)), 0, num_frozen)
        if num_frozen == self.num_stages:
            return self._frozen.pooled(tokens)
        return tokens.transpose(0, 1).flatten(1, 2)  # [G, B, S, C] → [B, T, C]

    def upper(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        return self._htsat.pooled(self._htsat.through(self._tokens(hidden, num_frozen), num_frozen))

    def learning_parts(self, rung: Rung) -> Parts:
        stages, parts = self._encoder.layers, {}
        if rung != "projection":
            parts[STAGE_4] = named("stage4", stages[-1]) | named("norm", self._encoder.norm)
        if rung in ("stages34", "all"):
            parts[STAGE_3] = named("stage3", stages[-2])
        if rung == "all":
            parts[BELOW] = named("patches", self._encoder.patch_embed) | named("stages", stages[:-2])
        return parts

    def _tokens(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        if num_frozen == 0:
            return self._htsat.embed(self._htsat.patches(hidden))
        size = self._encoder.config.window_size**2
        return torch.unflatten(hidden.to(self._htsat.dtype), 1, (-1, size)).transpose(0, 1)  # [B, T, C] → [G, B, S, C]

    @cached_property
    def _frozen(self) -> Htsat:
        return self._htsat.frozen()


class PannStages:
    """PANN-14, by autocast where `dtype` isn't float32; what lies between two blocks is an image `[B, C, T, F]`.

    The layer that follows on pooling learns with the last block.
    """

    def __init__(self, encoder: Cnn14, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._dtype = dtype
        self.num_stages = encoder.num_blocks

    def lower(self, features: torch.Tensor, num_frozen: int) -> torch.Tensor:
        with self._autocast(features):
            image = self._encoder.through(self._encoder.image(features), 0, num_frozen)
            return self._encoder.pooled(image) if num_frozen == self.num_stages else image

    def upper(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        with self._autocast(hidden):
            image = hidden if num_frozen else self._encoder.image(hidden)
            return self._encoder.pooled(self._encoder.through(image, num_frozen)).float()

    def learning_parts(self, rung: Rung) -> Parts:
        *below, stage_3, stage_4 = (f"conv_block{number}" for number in range(1, self.num_stages + 1))
        parts: Parts = {}
        if rung != "projection":
            parts[STAGE_4] = self._named(stage_4) | self._named("fc1")
        if rung in ("stages34", "all"):
            parts[STAGE_3] = self._named(stage_3)
        if rung == "all":
            parts[BELOW] = self._named("bn0")
            for name in below:
                parts[BELOW] |= self._named(name)
        return parts

    def _named(self, name: str) -> dict[str, torch.nn.Parameter]:
        return named(name, self._encoder.get_submodule(name))

    def _autocast(self, values: torch.Tensor) -> torch.autocast:
        return torch.autocast(values.device.type, self._dtype, enabled=self._dtype != torch.float32)
