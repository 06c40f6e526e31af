"""The audio tower as finetuning sees it: a frozen lower part, whose output can be kept, and an upper that learns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from transformers import ClapModel

from clapboard.htsat import Htsat

Rung = Literal["projection", "stage4", "stages34", "all"]
"""What learns, by how many labels there are: the projection, the last stage of HTSAT too, the last two too, or all."""

PROJECTION, STAGE_4, STAGE_3, BELOW = "projection", "stage 4", "stage 3", "below"

Weights = dict[str, torch.Tensor]


class Tower:
    """HTSAT and its projection, in inference mode: dropout off, and BatchNorm by its stored statistics.

    HTSAT computes in `dtype`; weights, gradients and the projection are float32.
    """

    def __init__(self, model: ClapModel, rung: Rung, dtype: torch.dtype = torch.float32) -> None:
        self._encoder = model.eval().audio_model.audio_encoder
        self._projection = model.audio_projection
        self._htsat = Htsat(self._encoder, dtype)
        num_stages = self._htsat.num_stages
        self._num_frozen = num_stages - {"projection": 0, "stage4": 1, "stages34": 2, "all": num_stages}[rung]
        model.requires_grad_(False)
        self.parts = self._learning_parts(rung)
        for part in self.parts.values():
            for parameter in part.values():
                parameter.requires_grad_(True)
        self.original = self.weights()

    @torch.no_grad()
    def lower(self, features: torch.Tensor) -> torch.Tensor:
        """What the frozen part makes of log-mel `[B, 1001, 64]`.

        Tokens `[B, T, C]`; for the projection `[B, C]`; the features themselves where all of HTSAT learns.
        """
        if self._num_frozen == 0:
            return features
        tokens = self._frozen.through(self._frozen.embed(self._frozen.patches(features)), 0, self._num_frozen)
        if self._num_frozen == self._htsat.num_stages:
            return self._frozen.pooled(tokens)
        return tokens.transpose(0, 1).flatten(1, 2)  # [G, B, S, C] → [B, T, C]

    def upper(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings `[B, D]` from what `lower` gave."""
        if self._num_frozen < self._htsat.num_stages:
            hidden = self._htsat.pooled(self._htsat.through(self._tokens(hidden), self._num_frozen))
        return torch.nn.functional.normalize(self._projection(hidden.float()), dim=-1)

    def _tokens(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._num_frozen == 0:
            return self._htsat.embed(self._htsat.patches(hidden))
        size = self._encoder.config.window_size**2
        return torch.unflatten(hidden.to(self._htsat.dtype), 1, (-1, size)).transpose(0, 1)  # [B, T, C] → [G, B, S, C]

    @cached_property
    def _frozen(self) -> Htsat:
        return self._htsat.frozen()

    def parameter_groups(self, rates: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
        """The optimiser's groups: each part has its rate. The projection doesn't decay: it is anchored instead."""
        groups = []
        for part, parameters in self.parts.items():
            for is_matrix in (True, False):
                chosen = [parameter for parameter in parameters.values() if (parameter.ndim > 1) == is_matrix]
                decay = weight_decay if is_matrix and part != PROJECTION else 0.0
                groups.append({"params": chosen, "lr": rates[part], "weight_decay": decay})
        return groups

    def anchor_distance(self) -> torch.Tensor:
        """The squared distance of the projection's weights from their pretrained values."""
        pairs = ((parameter, self.original[name]) for name, parameter in self.parts[PROJECTION].items())
        return torch.stack([(parameter - original).square().sum() for parameter, original in pairs]).sum()

    def weights(self) -> Weights:
        """A copy of all that learns."""
        return {name: value.detach().clone() for part in self.parts.values() for name, value in part.items()}

    def set_weights(self, tuned: Weights, alpha: float = 1.0) -> None:
        """Puts (1 − α) · original + α · tuned in place (WiSE-FT, Wortsman et al. 2022, eq. 1)."""
        with torch.no_grad():
            for part in self.parts.values():
                for name, parameter in part.items():
                    # Not lerp: at 0 and 1 the result has to be either, to the bit.
                    parameter.copy_(
                        tuned[name]
                        if alpha == 1
                        else self.original[name]
                        if alpha == 0
                        else (1 - alpha) * self.original[name] + alpha * tuned[name]
                    )

    def _learning_parts(self, rung: Rung) -> dict[str, dict[str, torch.nn.Parameter]]:
        stages = self._encoder.layers
        parts = {PROJECTION: _named("projection", self._projection)}
        if rung != "projection":
            parts[STAGE_4] = _named("stage4", stages[-1]) | _named("norm", self._encoder.norm)
        if rung in ("stages34", "all"):
            parts[STAGE_3] = _named("stage3", stages[-2])
        if rung == "all":
            parts[BELOW] = _named("patches", self._encoder.patch_embed) | _named("stages", stages[:-2])
        return parts


def _named(prefix: str, module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}
