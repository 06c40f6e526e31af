"""Weights and activations to int8, by NNCF, in a process of its own: beside torch, NNCF would change it.

`python quantiser.py FOLDER` reads `float32.xml`, whose constants are folded, and `patches.npy`, inputs `[N, …]`, and
writes `int8.xml` with its weights beside it. The first product stays in float32: of decibels, 256 steps are too few.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def quantise(folder: Path) -> None:
    """Write the quantised model."""
    import nncf  # only in a process of its own, once `_leave_out` was called there
    import openvino

    model = openvino.Core().read_model(folder / "float32.xml")
    patches = np.load(folder / "patches.npy", mmap_mode="r")
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul")
    quantised = nncf.quantize(
        model,
        nncf.Dataset(patches),
        subset_size=len(patches),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=[first.get_friendly_name()]),
    )
    openvino.save_model(quantised, folder / "int8.xml", compress_to_fp16=False)


def _leave_out() -> None:
    """Keep this process from importing what it doesn't need."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # it takes longer to import than all else
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # without it NNCF reports nothing to anybody


if __name__ == "__main__":
    _leave_out()
    quantise(Path(sys.argv[1]))
