"""Zero-shot classification of recordings by the names of their kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clapboard.audio.windows import Waveform
from clapboard.labels.prompts import prompts_for
from clapboard.suggest.scoring import mean_direction
from training.evaluate import Report, report
from training.mini.esc10 import Recording


class Encoder(Protocol):
    """The methods of `ClapEncoder` that zero-shot classification uses."""

    @property
    def logit_scale(self) -> float:
        """Factor from cosine to logit."""

    def embed_recording(self, recording: Waveform, /) -> npt.NDArray[np.float32]:
        """Samples `[T]` of any length → unit-norm `[D]`."""

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """L texts → unit-norm `[L, D]`."""


def zero_shot(
    encoder: Encoder, recordings: Sequence[Recording], prompts: Mapping[str, Sequence[str]] | None = None
) -> Report:
    """The report on recordings, each classified by the class weight nearest to its embedding.

    The classes are the kinds in `prompts`, or else those of the recordings.
    """
    texts = prompts or {kind: prompts_for(kind) for kind in sorted({recording.kind for recording in recordings})}
    kinds = tuple(texts)
    weights = np.stack([mean_direction(encoder.embed_texts(list(texts[kind]))) for kind in kinds])  # [L, D]
    audio = np.stack([encoder.embed_recording(recording.waveform) for recording in recordings])  # [N, D]
    cosines = audio @ weights.T  # [N, L]
    odds = np.exp(encoder.logit_scale * (cosines - cosines.max(axis=1, keepdims=True)))
    truth = np.array([[recording.kind == kind for kind in kinds] for recording in recordings])
    return report(odds / odds.sum(axis=1, keepdims=True), truth, kinds, multiple=False)
