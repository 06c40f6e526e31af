from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clapboard.model.device import serving_dtype, training_dtype


@pytest.mark.parametrize("policy", [serving_dtype, training_dtype])
def test_a_dtype_is_as_named_or_what_suits_a_gpu(policy: Callable[[str, torch.device], torch.dtype]) -> None:
    for device in (torch.device("cpu"), torch.device("cuda")):
        assert policy("float32", device) == torch.float32
        assert policy("bfloat16", device) == torch.bfloat16
    assert policy("auto", torch.device("cuda")) == torch.bfloat16
    assert serving_dtype("auto", torch.device("cpu")) == torch.float32
