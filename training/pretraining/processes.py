"""Communication between the processes that train together; a single process is the simplest case.

Under `torchrun`, every process takes its own part of a batch. Embeddings are gathered, so that the loss is that of the
whole batch, and gradients are averaged: the result is that of a single process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable

from clapboard.errors import TrainingError
from clapboard.model.device import find_device

_Item = TypeVar("_Item")

_TIMEOUT = timedelta(hours=12)  # the others wait while one process validates; torchrun ends a run whose process died


@dataclass(frozen=True)
class Processes:
    """This process's `rank` among `count`."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> tuple[Self, torch.device]:
        """Joins torchrun's processes, by NCCL on GPUs and gloo on CPUs; returns them and this process's device.

        Each process gets its own GPU. Without torchrun it is alone, on the given device. Raises `ModelError` if there
        are too few GPUs.
        """
        if not dist.is_torchelastic_launched():
            return cls(), device
        if device.type == "cuda":
            device = find_device(f"cuda:{dist.get_node_local_rank()}")
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
        return cls(dist.get_rank(), dist.get_world_size()), device

    def leave(self) -> None:
        """Leaves the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def wait(self) -> None:
        """Waits until all processes have called this."""
        if self.count > 1:
            dist.barrier()

    def require_same_step(self, step: int) -> None:
        """Raises `TrainingError` if the processes would start from different steps."""
        if len(steps := set(self.gather_items([step]))) > 1:
            raise TrainingError(
                f"The processes would start from different steps, {min(steps)} to {max(steps)}: start them with the "
                "same --out, on a disk that all of them share."
            )

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, `[B, …]` → `[count · B, …]`, with gradients; all must have equally many."""
        return torch.cat(_gathered(rows)) if self.count > 1 else rows

    def gather_items(self, items: Sequence[_Item]) -> list[_Item]:
        """The items of all processes, in the order of ranks."""
        if self.count == 1:
            return list(items)
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces each gradient with its mean over the processes, all in one message."""
        if self.count == 1:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in learning:  # a parameter without a gradient here may have one elsewhere
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
        message = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(message)
        message /= self.count
        for gradient, part in zip(
            gradients, torch.split(message, [gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def share_statistics(self, model: torch.nn.Module) -> None:
        """Makes each BatchNorm of the model use the batch of all processes."""
        if self.count == 1:
            return
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.__class__ = _SharedBatchNorm


ALONE = Processes()


class _SharedBatchNorm(torch.nn.BatchNorm2d):
    """BatchNorm over the clips of all processes, also on CPUs, which torch's SyncBatchNorm doesn't support.

    All processes must call it, even without clips. If together they have only one value a channel, which has no
    variance, the stored statistics are used.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accepts any number of dimensions."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        reduced = [dimension for dimension in range(input.ndim) if dimension != 1]
        values = input.float()
        here = torch.full((values.shape[1],), values.numel() / values.shape[1], device=values.device)
        total, count = _summed(torch.stack([values.sum(reduced), here]))
        is_enough = count > 1  # a tensor, so as not to wait for the GPU
        shape = [1, -1] + [1] * (input.ndim - 2)
        mean = total / count.clamp(min=1)
        variance = _summed((values - mean.view(shape)).square().sum(reduced)) / count.clamp(min=1)
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
