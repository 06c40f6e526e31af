"""How well an encoder tells kinds apart by their names alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from clapboard.audio import Waveform, window_waveform
from clapboard.prompts import prompts_for
from training.dataset import Recording


class Encoder(Protocol):
    """What `ClapEncoder` offers, and a model in training too."""

    def embed_windows(self, waveforms: Waveform) -> npt.NDArray[np.float32]:
        """`[N, 480000]` → unit-norm `[N, D]`."""

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """L texts → unit-norm `[L, D]`."""


@dataclass(frozen=True)
class Report:
    """Zero-shot results of single-label recordings. `confusion[i, j]`: recordings of kind i that were called kind j."""

    kinds: tuple[str, ...]
    accuracy: float
    macro_f1: float
    recall: Mapping[str, float]
    confusion: npt.NDArray[np.int64]

    def __str__(self) -> str:
        recalls = ", ".join(f"{kind} {value:.2f}" for kind, value in self.recall.items())
        return f"accuracy {self.accuracy:.3f}, macro F1 {self.macro_f1:.3f}; recall: {recalls}"


def zero_shot(
    encoder: Encoder, recordings: Sequence[Recording], prompts: Mapping[str, Sequence[str]] | None = None
) -> Report:
    """The report over recordings, each called by the kind whose class weight is nearest to its embedding.

    The kinds are those of the recordings, or the ones that `prompts` gives texts for.
    """
    texts = prompts or {kind: prompts_for(kind) for kind in sorted({recording.kind for recording in recordings})}
    kinds = tuple(texts)
    weights = np.stack([unit(encoder.embed_texts(list(texts[kind])).mean(axis=0)) for kind in kinds])  # [L, D]
    audio = np.stack([embed(encoder, recording.waveform) for recording in recordings])  # [N, D]
    truth = [recording.kind for recording in recordings]
    guess = [kinds[index] for index in (audio @ weights.T).argmax(axis=1)]
    recalls = recall_score(truth, guess, labels=kinds, average=None, zero_division=0.0)
    return Report(
        kinds=kinds,
        accuracy=float(accuracy_score(truth, guess)),
        macro_f1=float(f1_score(truth, guess, labels=kinds, average="macro", zero_division=0.0)),
        recall=dict(zip(kinds, map(float, recalls), strict=True)),
        confusion=confusion_matrix(truth, guess, labels=kinds),
    )


def embed(encoder: Encoder, waveform: Waveform) -> npt.NDArray[np.float32]:
    """One recording's embedding `[D]`: the unit-norm mean over its windows."""
    return unit(encoder.embed_windows(window_waveform(waveform)).mean(axis=0))


def unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vector at length 1."""
    return vector / np.linalg.norm(vector)
