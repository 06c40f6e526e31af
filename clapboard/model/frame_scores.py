"""FrameScores: how probable it is that a text's sound is heard in a frame, by what a checkpoint learnt about frames.

A checkpoint that was trained on sounds at known times has a file of them, `frame_scores.safetensors`; others have none,
and their frames can only be ranked by cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clapboard.errors import ModelError

FRAME_SCORES_FILE = "frame_scores.safetensors"

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FrameScores:
    """The probability of text t in frame x, σ(scale · cos(x, t) + text_weight · t + bias).

    A bias that depends on the text is from FLAM (Wu et al. 2025, arXiv 2505.05335, section 3): some sounds are heard in
    far fewer frames than others. Here it is linear in the text's unit-norm embedding; `text_weight` is `[D]`.
    """

    scale: float
    text_weight: Array
    bias: float

    @classmethod
    def read(cls, folder: Path, model: str, dim: int) -> Self | None:
        """The checkpoint's frame scores; None if it has learnt none.

        Raises `ModelError`, which calls the checkpoint `model`, if the file is damaged or isn't for embeddings of
        length `dim`.
        """
        file = folder / FRAME_SCORES_FILE
        if not file.is_file():
            return None
        try:
            values = {name: np.asarray(value, np.float32) for name, value in load_file(file).items()}
            scale, bias = float(values["scale"].reshape(())), float(values["bias"].reshape(()))
            text_weight = values["text_weight"].reshape(dim)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(
                f"Model {model} can't be read: its {FRAME_SCORES_FILE} is damaged or belongs to another one."
            ) from error
        if not np.isfinite([scale, bias, *text_weight]).all():
            raise ModelError(f"Model {model} can't be read: its {FRAME_SCORES_FILE} holds values that aren't numbers.")
        return cls(scale, text_weight, bias)

    def write(self, folder: Path) -> None:
        """Write the file that `read` reads."""
        values = {"scale": self.scale, "text_weight": self.text_weight, "bias": self.bias}
        save_file({name: np.array(value, np.float32) for name, value in values.items()}, folder / FRAME_SCORES_FILE)

    def probabilities(self, frames: Array, texts: Array) -> Array:
        """Unit-norm frames `[…, D]` and texts `[L, D]` → `[…, L]`, which needn't sum to 1."""
        logits = self.scale * (frames @ texts.T) + (texts @ self.text_weight + self.bias)
        probabilities: Array = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)  # σ, without overflow
        return probabilities
