"""The audio tower for finetuning: a frozen lower part, whose output can be stored, and an upper part that learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clapboard.model.checkpoints import Clap
from training.finetuning.tower_stages import PROJECTION, TrainableStages, named, stages_of

Weights = dict[str, torch.Tensor]


class Tower:
    """HTSAT or PANN-14 with its projection, in inference mode: no dropout, and BatchNorm by its stored statistics.

    The tower computes in `dtype`; weights, gradients and the projection are float32.
    """

    def __init__(self, model: Clap, trainable: TrainableStages, dtype: torch.dtype = torch.float32) -> None:
        self._projection = model.audio_projection
        self._stages = stages_of(model.eval().audio_model.audio_encoder, dtype)
        num_stages = self._stages.num_stages
        self._num_frozen = num_stages - {"projection": 0, "stage4": 1, "stages34": 2, "all": num_stages}[trainable]
        model.requires_grad_(False)
        self.parts = {PROJECTION: named("projection", self._projection)} | self._stages.learning_parts(trainable)
        for part in self.parts.values():
            for parameter in part.values():
                parameter.requires_grad_(True)
        self.original = self.weights()

    @torch.no_grad()
    def lower(self, features: torch.Tensor) -> torch.Tensor:
        """The frozen part's output for log-mel `[B, 1001, 64]`.

        It is HTSAT's tokens `[B, T, C]` or PANN-14's image `[B, C, T, F]`; pooled `[B, C]` where only the projection
        learns; and the log-mel itself where the whole tower learns.
        """
        return self._stages.lower(features, self._num_frozen) if self._num_frozen else features

    def upper(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings `[B, D]` from the output of `lower`."""
        if self._num_frozen < self._stages.num_stages:
            hidden = self._stages.upper(hidden, self._num_frozen)
        return torch.nn.functional.normalize(self._projection(hidden.float()), dim=-1)

    def parameter_groups(self, rates: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
        """The optimiser's groups, each part with its learning rate. The projection is anchored instead of decayed."""
        groups = []
        for part, parameters in self.parts.items():
            for is_matrix in (True, False):
                group = [parameter for parameter in parameters.values() if (parameter.ndim > 1) == is_matrix]
                decay = weight_decay if is_matrix and part != PROJECTION else 0.0
                groups.append({"params": group, "lr": rates[part], "weight_decay": decay})
        return groups

    def anchor_distance(self) -> torch.Tensor:
        """The squared distance of the projection's weights from their pretrained values."""
        pairs = ((parameter, self.original[name]) for name, parameter in self.parts[PROJECTION].items())
        return torch.stack([(parameter - original).square().sum() for parameter, original in pairs]).sum()

    def weights(self) -> Weights:
        """A copy of all weights that learn."""
        return {name: value.detach().clone() for part in self.parts.values() for name, value in part.items()}

    def set_weights(self, tuned: Weights, alpha: float = 1.0) -> None:
        """Sets the weights to (1 − α) · original + α · tuned (WiSE-FT, Wortsman et al. 2022, eq. 1)."""
        with torch.no_grad():
            for part in self.parts.values():
                for name, parameter in part.items():
                    # Not lerp: at 0 and 1 the result must equal the original or the tuned weights exactly.
                    parameter.copy_(
                        tuned[name]
                        if alpha == 1
                        else self.original[name]
                        if alpha == 0
                        else (1 - alpha) * self.original[name] + alpha * tuned[name]
                    )
