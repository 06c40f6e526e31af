"""The processes that train together: what each has to know of the others. One process alone is the simplest case.

Started by `torchrun`, every process hears its own part of a batch; embeddings are gathered, so that the loss is that of
the whole batch, and so are gradients: the result is the one of a single process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable

from clapboard.clap import find_device
from clapboard.errors import TrainingError

_Item = TypeVar("_Item")

_PATIENCE = timedelta(hours=12)  # with a process that validates, while the others wait; torchrun ends what has died


@dataclass(frozen=True)
class Processes:
    """This process's `rank` among `count`."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> tuple[Self, torch.device]:
        """Those that `torchrun` started, by NCCL on GPUs and gloo on CPUs, and this one's device, a GPU of its own.

        Without torchrun it is alone, on the device as given. Raises `ModelError` if there are too few GPUs.
        """
        if not dist.is_torchelastic_launched():
            return cls(), device
        if device.type == "cuda":
            device = find_device(f"cuda:{dist.get_node_local_rank()}")
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size()), device

    def leave(self) -> None:
        """Ends the group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def wait(self) -> None:
        """Until all have come so far."""
        if self.count > 1:
            dist.barrier()

    def require_same_step(self, step: int) -> None:
        """Raises `TrainingError` if the others would begin at another step than this process."""
        if len(steps := set(self.gather_items([step]))) > 1:
            raise TrainingError(
                f"The processes would begin at different steps, {min(steps)} to {max(steps)}: start them with one "
                "--out, on a disk that all of them see."
            )

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Everybody's rows `[B, …]` → `[count · B, …]`, with gradients; all must have as many."""
        return torch.cat(_gathered(rows)) if self.count > 1 else rows

    def gather_items(self, items: Sequence[_Item]) -> list[_Item]:
        """Everybody's items in the order of ranks."""
        if self.count == 1:
            return list(items)
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Puts the mean over the processes in place of each gradient, all of them in one message."""
        if self.count == 1:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in learning:  # one that got none here may have got one elsewhere
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
        message = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(message)
        message /= self.count
        for gradient, part in zip(gradients, torch.split(message, [one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def share_statistics(self, model: torch.nn.Module) -> None:
        """Has each BatchNorm of the model learn from everybody's part of a batch."""
        if self.count == 1:
            return
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.__class__ = _SharedBatchNorm


ALONE = Processes()


class _SharedBatchNorm(torch.nn.BatchNorm2d):
    """BatchNorm over all processes' clips, on CPUs too, where torch's own SyncBatchNorm doesn't go.

    All have to come here, those with no clip at all too. Where they have but one value a channel together, which has no
    variance, it goes by the stored statistics.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of dimensions is fine."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        others = [dimension for dimension in range(input.ndim) if dimension != 1]
        values = input.float()
        here = torch.full((values.shape[1],), values.numel() / values.shape[1], device=values.device)
        total, count = _summed(torch.stack([values.sum(others), here]))
        is_enough = count > 1  # decided without waiting for a GPU's answer
        shape = [1, -1] + [1] * (input.ndim - 2)
        mean = total / count.clamp(min=1)
        variance = _summed((values - mean.view(shape)).square().sum(others)) / count.clamp(min=1)
        mean = torch.where(is_enough, mean, self.running_mean)
        variance = torch.where(is_enough, variance, self.running_var)
        if self.track_running_stats:
            with torch.no_grad():
                share = is_enough * (self.momentum or 0.1)
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
                self.num_batches_tracked += is_enough[0]
        scale = (self.weight * torch.rsqrt(variance + self.eps)).view(shape)
        return ((values - mean.view(shape)) * scale + self.bias.view(shape)).to(input.dtype)


def _gathered(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    parts: tuple[torch.Tensor, ...] = differentiable.all_gather(rows)  # type: ignore[no-untyped-call]
    return parts


def _summed(values: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = differentiable.all_reduce(values)  # type: ignore[no-untyped-call]
    return total
