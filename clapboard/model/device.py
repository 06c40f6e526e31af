"""The device and the number format to compute in, from the names that settings give them."""

from __future__ import annotations

import torch

from clapboard.errors import ModelError


def find_device(name: str) -> torch.device:
    """The device with that name; `auto` is a GPU if there is one. Raises `ModelError` if it doesn't exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"Device {name} is unknown: set CLAPBOARD_DEVICE to auto, cpu, cuda or cuda:N.") from None
    if device.type not in {"cpu", "cuda"}:
        raise ModelError(f"Device {name} is not supported: set CLAPBOARD_DEVICE to auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ModelError(f"Device {name} is not there: set CLAPBOARD_DEVICE to auto, cpu or a GPU that exists.")
    return device


def serving_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype to compute embeddings in; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    return torch.bfloat16 if name == "bfloat16" or (name == "auto" and device.type == "cuda") else torch.float32


def training_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype to train in; `auto` is bfloat16 on a GPU, and on a CPU that has instructions for it."""
    capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = device.type == "cpu" and (capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return torch.bfloat16 if name == "auto" and has_bfloat16 else serving_dtype(name, device)
