"""The device to compute on and the number format to compute in, from the names that settings give them.

A format for which a device has no instructions is refused: emulated bfloat16 was measured at 28 times float32's time.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from clapboard.errors import ModelError

Dtype = Literal["auto", "float32", "bfloat16", "int8"]

_CPUINFO = Path("/proc/cpuinfo")
# The name under which torch knows a processor's feature, and its maker's name for it; the faster first.
_BFLOAT16 = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16", "bf16": "ARM BF16"}
_INT8 = {"amx_int8": "AMX-INT8", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "i8mm": "ARM I8MM"}


@dataclass(frozen=True)
class Arithmetic:
    """A device's name, and the names of its instructions for products in bfloat16 and int8, fastest first."""

    device: str
    bfloat16: tuple[str, ...]
    int8: tuple[str, ...] = ()

    def __str__(self) -> str:
        formats = {"bfloat16": self.bfloat16, "int8": self.int8}
        able = [f"{name} ({', '.join(by)})" for name, by in formats.items() if by]
        unable = [f"no {name}" for name, by in formats.items() if not by]
        return f"{self.device}: {', '.join(['float32', *able, *unable])}"

    @classmethod
    def of_processor(cls, name: str, capabilities: Mapping[str, object]) -> Arithmetic:
        """That of a CPU with these of torch's capabilities. (`is_mkldnn_bf16_supported` counts emulation, too.)"""
        return cls(
            name,
            tuple(told for feature, told in _BFLOAT16.items() if capabilities.get(feature)),
            tuple(told for feature, told in _INT8.items() if capabilities.get(feature)),
        )

    @classmethod
    def of(cls, device: torch.device) -> Arithmetic:
        """That of a device of this machine."""
        if device.type == "cpu":
            return cls.of_processor(processor_name(), torch.cpu.get_capabilities())
        with torch.cuda.device(device):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return cls(torch.cuda.get_device_name(device), ("its own",) if has_bfloat16 else ())


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


def serving_dtype(name: str, device: torch.device, arithmetic: Arithmetic | None = None) -> torch.dtype:
    """The dtype to compute embeddings in; `auto` is bfloat16 on a GPU that has it, and float32 on all else.

    `arithmetic` is the device's. Raises `ModelError` for a dtype that the device would have to emulate.
    """
    arithmetic = arithmetic or Arithmetic.of(device)
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and arithmetic.bfloat16 else torch.float32
    if name == "int8":
        if not arithmetic.int8:
            raise ModelError(
                f"{arithmetic.device} has no instructions for int8, as CPUs with {', '.join(_INT8.values())} have: set "
                "CLAPBOARD_DTYPE to auto or float32."
            )
        return torch.int8
    if name == "bfloat16" and not arithmetic.bfloat16:
        wanted = "AMX-BF16, AVX512-BF16" if device.type == "cpu" else "compute capability 8.0"
        raise ModelError(
            f"{arithmetic.device} has no instructions for bfloat16 ({wanted}), and emulating it takes many times as "
            "long as float32: set CLAPBOARD_DTYPE to auto or float32."
        )
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def training_dtype(name: str, device: torch.device, arithmetic: Arithmetic | None = None) -> torch.dtype:
    """The dtype to train in; `auto` is bfloat16 on any device that has instructions for it, and so is `int8`'s.

    `arithmetic` is the device's. Raises `ModelError` for a dtype that the device would have to emulate.
    """
    arithmetic = arithmetic or Arithmetic.of(device)
    if name in {"auto", "int8"}:  # int8 is for serving alone
        return torch.bfloat16 if arithmetic.bfloat16 else torch.float32
    return serving_dtype(name, device, arithmetic)


def dtype_reason(name: str, device: torch.device, arithmetic: Arithmetic) -> str:
    """Why `serving_dtype` chose as it did, in words."""
    if name != "auto":
        return "as CLAPBOARD_DTYPE says"
    if device.type == "cuda":
        return "which auto takes on a GPU that computes in it" if arithmetic.bfloat16 else "as this GPU has no bfloat16"
    return "which auto takes on a CPU"


def processor_name() -> str:
    """The processor's name as its maker wrote it."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
