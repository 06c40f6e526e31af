"""The optimisers of a model's parameters, and their learning rate."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

OptimiserName = Literal["muon", "adamw"]
"""From scratch, `muon` (Jordan et al. 2024) needs a fraction of AdamW's steps. It optimises the matrices, and AdamW the
rest. Use `adamw` to go on training a pretrained model."""


class Optimiser:
    """Optimises each parameter of a model with the method that suits it."""

    def __init__(self, model: torch.nn.Module, name: OptimiserName, weight_decay: float) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices, others = _matrices_and_others(model)
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        }
        if name == "muon":
            muon = torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            self._parts["matrices"] = muon
        else:
            self._parts["matrices"] = torch.optim.AdamW(
                matrices, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
            )

    def step(self, rate: float, max_norm: float) -> float:
        """Takes a step with the gradients clipped to the total norm `max_norm`; returns their norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, max_norm)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """The state to save."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state that `state_dict` returned."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def cosine_rate(step: int, *, peak: float, warmup_steps: int, num_steps: int) -> float:
    """The rate of a step: a linear rise to `peak`, then half a cosine down to 0 (Loshchilov & Hutter 2017, eq. 5)."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2


def _matrices_and_others(model: torch.nn.Module) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The weights of linear layers; and the rest: biases, norms, embeddings, convolutions, the two temperatures."""
    of_linear = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in parameters if id(p) in of_linear], [p for p in parameters if id(p) not in of_linear]
