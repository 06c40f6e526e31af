"""The audio tower as finetuning sees it: a frozen lower part, whose output can be kept, and an upper that learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clapboard.pretrained import Clap
from training.finetuning.stages import PROJECTION, Rung, named, stages_of

Weights = dict[str, torch.Tensor]


class Tower:
    """HTSAT or PANN-14 and its projection, in inference mode: dropout off, and BatchNorm by its stored statistics.

    The tower computes in `dtype`; weights, gradients and the projection are float32.
    """

    def __init__(self, model: Clap, rung: Rung, dtype: torch.dtype = torch.float32) -> None:
        self._projection = model.audio_projection
        self._stages = stages_of(model.eval().audio_model.audio_encoder, dtype)
        num_stages = self._stages.num_stages
        self._num_frozen = num_stages - {"projection": 0, "stage4": 1, "stages34": 2, "all": num_stages}[rung]
        model.requires_grad_(False)
        self.parts = {PROJECTION: named("projection", self._projection)} | self._stages.learning_parts(rung)
        for part in self.parts.values():
            for parameter in part.values():
                parameter.requires_grad_(True)
        self.original = self.weights()

    @torch.no_grad()
    def lower(self, features: torch.Tensor) -> torch.Tensor:
        """What the frozen part makes of log-mel `[B, 1001, 64]`.

        HTSAT's tokens `[B, T, C]`, PANN-14's image `[B, C, T, F]`; for the projection `[B, C]`; the features themselves
        where all of the tower learns.
        """
        return self._stages.lower(features, self._num_frozen) if self._num_frozen else features

    def upper(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings `[B, D]` from what `lower` gave."""
        if self._num_frozen < self._stages.num_stages:
            hidden = self._stages.upper(hidden, self._num_frozen)
        return torch.nn.functional.normalize(self._projection(hidden.float()), dim=-1)

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
