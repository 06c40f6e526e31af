"""What the figures were measured on, in words."""

from __future__ import annotations

import os

import torch

from clapboard.model.device import Arithmetic

_BUSY_LOAD = 0.7


def describe_hardware() -> str:
    """The processor, what it computes, cores and threads, the GPU, and whether others are at work too.

    Torch's threads wait for each other: where others have half of the cores, it takes several times as long.
    """
    cores = len(os.sched_getaffinity(0))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = os.getloadavg()[0]
    others = f", BUSY (load {load:.1f} in the minute before)" if load > _BUSY_LOAD else ""
    return f"{Arithmetic.of(torch.device('cpu'))}; {cores} cores, {torch.get_num_threads()} threads, {gpu}{others}"
