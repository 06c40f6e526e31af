"""What the figures were measured on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")
_BUSY_LOAD = 0.7
_FAST_BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 bf16 without AMX"}


def describe_hardware() -> str:
    """The processor, what it has for bfloat16, cores and threads, the GPU, and whether others are at work too.

    Torch's threads wait for each other: where others have half of the cores, it takes several times as long.
    """
    features = torch.cpu.get_capabilities()
    bf16 = next((name for feature, name in _FAST_BF16.items() if features.get(feature)), "no bf16 arithmetic")
    cores = len(os.sched_getaffinity(0))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = os.getloadavg()[0]
    others = f", BUSY (load {load:.1f} in the minute before)" if load > _BUSY_LOAD else ""
    return f"{_processor()} ({bf16}), {cores} cores, {torch.get_num_threads()} threads, {gpu}{others}"


def _processor() -> str:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
