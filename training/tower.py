"""The audio tower as finetuning sees it: a frozen lower part, whose output can be kept, and an upper that learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers import ClapModel

Rung = Literal["projection", "stage4", "stages34"]
"""What learns, by how many labels there are: the projection, the last stage of HTSAT too, the last two too."""

PROJECTION, STAGE_4, STAGE_3 = "projection", "stage 4", "stage 3"

Weights = dict[str, torch.Tensor]


class Tower:
    """HTSAT and its projection, in inference mode: dropout off, and BatchNorm by its stored statistics."""

    def __init__(self, model: ClapModel, rung: Rung) -> None:
        self._encoder = model.eval().audio_model.audio_encoder
        self._projection = model.audio_projection
        self._num_frozen = len(self._encoder.layers) - {"projection": 0, "stage4": 1, "stages34": 2}[rung]
        model.requires_grad_(False)
        self.parts = self._learning_parts(rung)
        for part in self.parts.values():
            for parameter in part.values():
                parameter.requires_grad_(True)
        self.original = self.weights()

    def lower(self, features: torch.Tensor) -> torch.Tensor:
        """What the frozen part makes of log-mel `[B, 1001, 64]`: tokens `[B, T, C]`, or `[B, C]` for the projection."""
        encoder = self._encoder
        channels = features[:, None]
        if encoder.enable_fusion:
            channels = channels.expand(-1, 4, -1, -1)  # [B, 1, 1001, 64] → [B, 4, 1001, 64]
        image = encoder.reshape_mel2img(encoder.batch_norm(channels.transpose(1, 3)).transpose(1, 3))
        none_is_longer = torch.zeros(0, dtype=torch.long, device=features.device)
        tokens = self._stages(encoder.patch_embed(image, none_is_longer), 0, self._num_frozen)
        return self._pooled(tokens) if self._num_frozen == len(encoder.layers) else tokens

    def upper(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings `[B, D]` from what `lower` gave."""
        if self._num_frozen < len(self._encoder.layers):
            hidden = self._pooled(self._stages(hidden, self._num_frozen, len(self._encoder.layers)))
        return torch.nn.functional.normalize(self._projection(hidden).float(), dim=-1)

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

    def _stages(self, tokens: torch.Tensor, first: int, stop: int) -> torch.Tensor:
        for index in range(first, stop):
            tokens = self._encoder.layers[index](tokens, self._encoder.input_resolutions[index])[0]
        return tokens

    def _pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self._encoder.norm(tokens).mean(dim=1)  # [B, T, C] → [B, C]
        return pooled

    def _learning_parts(self, rung: Rung) -> dict[str, dict[str, torch.nn.Parameter]]:
        stages = self._encoder.layers
        parts = {PROJECTION: _named("projection", self._projection)}
        if rung != "projection":
            parts[STAGE_4] = _named("stage4", stages[-1]) | _named("norm", self._encoder.norm)
        if rung == "stages34":
            parts[STAGE_3] = _named("stage3", stages[-2])
        return parts


def _named(prefix: str, module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}
