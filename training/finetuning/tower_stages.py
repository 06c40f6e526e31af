"""The stages of the audio towers, at which finetuning cuts them in two: HTSAT's stages, or PANN-14's blocks."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Protocol

import torch

from clapboard.model.cnn14 import Cnn14
from clapboard.model.htsat import Htsat

TrainableStages = Literal["projection", "stage4", "stages34", "all"]
"""What learns: the projection alone, the tower's last stage too, its last two stages too, or all of the tower."""

PROJECTION, STAGE_4, STAGE_3, BELOW = "projection", "stage 4", "stage 3", "below"

Parts = dict[str, dict[str, torch.nn.Parameter]]


class TowerStages(Protocol):
    """A tower with frozen first stages, whose output is stored and goes through the other stages in every step."""

    @property
    def num_stages(self) -> int:
        """The number of stages."""

    def lower(self, features: torch.Tensor, num_frozen: int) -> torch.Tensor:
        """The output of the first `num_frozen` ≥ 1 stages for log-mel `[B, 1001, 64]`; of all, pooled `[B, C]`."""

    def upper(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        """Pooled `[B, C]` float32 from the output of `lower`, or from log-mel where no stage is frozen."""

    def learning_parts(self, trainable: TrainableStages) -> Parts:
        """The parameters that learn, by part and name."""


def stages_of(encoder: torch.nn.Module, dtype: torch.dtype) -> TowerStages:
    """The stages of a checkpoint's `audio_model.audio_encoder`, computed in `dtype`."""
    return PannStages(encoder, dtype) if isinstance(encoder, Cnn14) else HtsatStages(encoder, dtype)


def named(prefix: str, module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The module's parameters by name, with the prefix before each name."""
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}


class HtsatStages:
    """HTSAT, computed by our own forward pass. Between two stages lie tokens `[B, T, C]`."""

    def __init__(self, encoder: Any, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._htsat = Htsat(encoder, dtype)
        self.num_stages = self._htsat.num_stages

    def lower(self, features: torch.Tensor, num_frozen: int) -> torch.Tensor:
        tokens = self._frozen.run_stages(self._frozen.embed_patches(self._frozen.patches(features)), 0, num_frozen)
        if num_frozen == self.num_stages:
            return self._frozen.pooled(tokens)
        return tokens.transpose(0, 1).flatten(1, 2)  # [G, B, S, C] → [B, T, C]

    def upper(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        return self._htsat.pooled(self._htsat.run_stages(self._tokens(hidden, num_frozen), num_frozen))

    def learning_parts(self, trainable: TrainableStages) -> Parts:
        stages, parts = self._encoder.layers, {}
        if trainable != "projection":
            parts[STAGE_4] = named("stage4", stages[-1]) | named("norm", self._encoder.norm)
        if trainable in ("stages34", "all"):
            parts[STAGE_3] = named("stage3", stages[-2])
        if trainable == "all":
            parts[BELOW] = named("patches", self._encoder.patch_embed) | named("stages", stages[:-2])
        return parts

    def _tokens(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        if num_frozen == 0:
            return self._htsat.embed_patches(self._htsat.patches(hidden))
        size = self._encoder.config.window_size**2
        return torch.unflatten(hidden.to(self._htsat.dtype), 1, (-1, size)).transpose(0, 1)  # [B, T, C] → [G, B, S, C]

    @cached_property
    def _frozen(self) -> Htsat:
        return self._htsat.frozen()


class PannStages:
    """PANN-14, with autocast unless `dtype` is float32. Between two blocks lies an image `[B, C, T, F]`.

    The linear layer after pooling learns with the last block.
    """

    def __init__(self, encoder: Cnn14, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._dtype = dtype
        self.num_stages = encoder.num_blocks

    def lower(self, features: torch.Tensor, num_frozen: int) -> torch.Tensor:
        with self._autocast(features):
            image = self._encoder.run_blocks(self._encoder.image(features), 0, num_frozen)
            return self._encoder.pooled(image) if num_frozen == self.num_stages else image

    def upper(self, hidden: torch.Tensor, num_frozen: int) -> torch.Tensor:
        with self._autocast(hidden):
            image = hidden if num_frozen else self._encoder.image(hidden)
            return self._encoder.pooled(self._encoder.run_blocks(image, num_frozen)).float()

    def learning_parts(self, trainable: TrainableStages) -> Parts:
        *below, stage_3, stage_4 = (f"conv_block{number}" for number in range(1, self.num_stages + 1))
        parts: Parts = {}
        if trainable != "projection":
            parts[STAGE_4] = self._named(stage_4) | self._named("fc1")
        if trainable in ("stages34", "all"):
            parts[STAGE_3] = self._named(stage_3)
        if trainable == "all":
            parts[BELOW] = self._named("bn0")
            for name in below:
                parts[BELOW] |= self._named(name)
        return parts

    def _named(self, name: str) -> dict[str, torch.nn.Parameter]:
        return named(name, self._encoder.get_submodule(name))

    def _autocast(self, values: torch.Tensor) -> torch.autocast:
        return torch.autocast(values.device.type, self._dtype, enabled=self._dtype != torch.float32)
