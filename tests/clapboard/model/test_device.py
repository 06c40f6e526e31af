from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clapboard.errors import ModelError
from clapboard.model.clap import ClapEncoder
from clapboard.model.device import Arithmetic, serving_dtype, training_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
EPYC = Arithmetic.of_processor("AMD EPYC", {"avx512_bf16": True, "amx_bf16": False, "avx512_vnni": True, "avx2": True})
SAPPHIRE = Arithmetic.of_processor(
    "Xeon 8480", dict.fromkeys(("amx_bf16", "avx512_bf16", "amx_int8", "avx512_vnni"), True)
)
CASCADE_LAKE = Arithmetic.of_processor("Xeon 8259CL", {"avx512_bf16": False, "avx512_vnni": True})
HASWELL = Arithmetic.of_processor("Xeon E5", {"avx2": True})
GRAVITON = Arithmetic.of_processor("Neoverse-V1", {"bf16": True, "i8mm": True})
AMPERE, TURING = Arithmetic("NVIDIA A10", ("its own",)), Arithmetic("Tesla T4", ())

Policy = Callable[[str, torch.device, Arithmetic], torch.dtype]


@pytest.mark.parametrize(
    ("arithmetic", "told"),
    [
        (EPYC, "AMD EPYC: float32, bfloat16 (AVX512-BF16), int8 (AVX512-VNNI)"),
        (SAPPHIRE, "Xeon 8480: float32, bfloat16 (AMX-BF16, AVX512-BF16), int8 (AMX-INT8, AVX512-VNNI)"),
        (CASCADE_LAKE, "Xeon 8259CL: float32, int8 (AVX512-VNNI), no bfloat16"),
        (HASWELL, "Xeon E5: float32, no bfloat16, no int8"),
        (GRAVITON, "Neoverse-V1: float32, bfloat16 (ARM BF16), int8 (ARM I8MM)"),
    ],
    ids=lambda value: value.device if isinstance(value, Arithmetic) else "",
)
def test_a_processor_is_told_by_what_it_computes(arithmetic: Arithmetic, told: str) -> None:
    assert str(arithmetic) == told


def test_this_processor_is_known_by_the_flags_that_the_kernel_reads() -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Feat")))
    known = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16", "bf16": "ARM BF16"}
    expected = {told for flag, told in known.items() if flag in flags.split()}
    assert set(Arithmetic.of(CPU).bfloat16) == expected


@pytest.mark.parametrize("policy", [serving_dtype, training_dtype])
@pytest.mark.parametrize(("device", "arithmetic"), [(CPU, EPYC), (CPU, GRAVITON), (CUDA, AMPERE)])
def test_a_dtype_is_as_named(policy: Policy, device: torch.device, arithmetic: Arithmetic) -> None:
    assert policy("float32", device, arithmetic) == torch.float32
    assert policy("bfloat16", device, arithmetic) == torch.bfloat16


def test_auto_serves_in_bfloat16_on_gpus_and_trains_in_it_wherever_it_is_computed() -> None:
    for device, arithmetic, serving, training in (
        (CPU, EPYC, torch.float32, torch.bfloat16),
        (CPU, CASCADE_LAKE, torch.float32, torch.float32),
        (CUDA, AMPERE, torch.bfloat16, torch.bfloat16),
        (CUDA, TURING, torch.float32, torch.float32),
    ):
        assert serving_dtype("auto", device, arithmetic) == serving
        assert training_dtype("auto", device, arithmetic) == training


@pytest.mark.parametrize("policy", [serving_dtype, training_dtype])
@pytest.mark.parametrize(
    ("device", "arithmetic", "wanted"),
    [
        (CPU, CASCADE_LAKE, "AMX-BF16, AVX512-BF16"),
        (CPU, HASWELL, "AMX-BF16"),
        (CUDA, TURING, "compute capability 8.0"),
    ],
)
def test_bfloat16_that_would_be_emulated_is_refused(
    policy: Policy, device: torch.device, arithmetic: Arithmetic, wanted: str
) -> None:
    with pytest.raises(ModelError) as refused:
        policy("bfloat16", device, arithmetic)
    message = str(refused.value)
    assert message.startswith(f"{arithmetic.device} has no instructions for bfloat16 ({wanted}")
    assert message.endswith("set CLAPBOARD_DTYPE to auto or float32.")


def test_a_checkpoint_is_refused_before_it_is_read_and_loaded_as_auto_says(
    tiny_clap: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ModelError, match=r"^Xeon 8259CL has no instructions for bfloat16"):
        ClapEncoder.load(str(tmp_path / "nothing"), device="cpu", dtype="bfloat16", arithmetic=CASCADE_LAKE)
    with caplog.at_level(logging.INFO):
        encoder = ClapEncoder.load(str(tiny_clap), device="cpu", batch_size=1, arithmetic=CASCADE_LAKE)
    assert encoder.identity.dtype == "float32"
    assert encoder.computing == (
        "Xeon 8259CL: float32, int8 (AVX512-VNNI), no bfloat16; it computes in float32, which auto takes on a CPU; "
        "engine openvino, the fastest"
    )
    assert encoder.computing in caplog.messages


def test_a_named_dtype_and_engine_are_told_as_such(tiny_clap: Path) -> None:
    encoder = ClapEncoder.load(
        str(tiny_clap), device="cpu", dtype="bfloat16", engine="torch", batch_size=1, arithmetic=SAPPHIRE
    )
    assert (
        encoder.computing
        == f"{SAPPHIRE}; it computes in bfloat16, as CLAPBOARD_DTYPE says; engine torch, as CLAPBOARD_ENGINE says"
    )
