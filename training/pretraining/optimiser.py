"""Which optimiser changes which parameter, and at what rate."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

OptimiserName = Literal["muon", "adamw"]
"""`muon` (Jordan et al. 2024) learns from scratch in a fraction of AdamW's steps. It is for matrices alone, all else is
AdamW's. What is pretrained already goes on with `adamw`."""


class Optimiser:
    """All parameters of a model, each with what suits it."""

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
        """Changes the parameters by their gradients, clipped to `max_norm` all together; returns their norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, max_norm)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """All that has to be saved."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def cosine_rate(step: int, *, peak: float, warmup_steps: int, num_steps: int) -> float:
    """The rate of a step: up in a line to `peak`, then down to 0 by half a cosine (Loshchilov & Hutter 2017, eq. 5)."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2


def _matrices_and_others(model: torch.nn.Module) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The weights that multiply activations, and all else: biases, norms, tables, filters, the two temperatures."""
    of_linear = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in parameters if id(p) in of_linear], [p for p in parameters if id(p) not in of_linear]
