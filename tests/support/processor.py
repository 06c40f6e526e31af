"""What tests need the processor to compute."""

from __future__ import annotations

import pytest
import torch

from clapboard.model.device import Arithmetic

needs_bfloat16 = pytest.mark.skipif(
    not Arithmetic.of(torch.device("cpu")).bfloat16, reason="this processor has no instructions for bfloat16"
)
"""For tests that have a CPU train or serve in bfloat16; others say by an `Arithmetic` that it can."""

needs_int8 = pytest.mark.skipif(
    not Arithmetic.of(torch.device("cpu")).int8, reason="this processor has no instructions for int8"
)
