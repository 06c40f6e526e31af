"""A small project: short clips of three kinds of sound, with their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from clapboard.labels.label_space import Control, LabelSpace, label_space_of
from training.finetuning.labelled import LabelledClip, Split

KINDS = ("low hum", "high hum", "hiss")
RATE_HZ = 16_000
WEIGHT = 0.02  # so little that the head leaves something to be learnt


def labelled_sounds(folder: Path) -> list[LabelledClip]:
    """Ten clips of each kind in the folder. Two are for validation and sound like two to learn from.

    So what is learnt by heart validates well: it is not the model's talent that is tested.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for kind in KINDS:
        for number in range(10):
            path = folder / f"{kind} {number}.wav"
            soundfile.write(path, _sound(kind, number % 8), RATE_HZ)
            split: Split = "validation" if number >= 8 else "train"
            clips.append(LabelledClip(path, f"{kind} {number}", {"label": (kind,)}, split, WEIGHT))
    return clips


def label_space(multiple: bool = False) -> LabelSpace:
    """One Choices with the three kinds."""
    space = label_space_of(KINDS)
    if not multiple:
        return space
    (control,) = space.controls
    several = Control("label", "choices", "audio", control.labels, True, False, None)
    return LabelSpace("audio", "audio", (several,))


def _sound(kind: str, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    time_s = np.arange(RATE_HZ) / RATE_HZ
    hz = {"low hum": 150, "high hum": 3_000, "hiss": 0}[kind] * rng.uniform(0.8, 1.25)
    tone = np.sin(2 * np.pi * hz * time_s) if hz else np.zeros(RATE_HZ)
    noise = rng.standard_normal(RATE_HZ) * (0.02 if hz else 0.5)
    return (0.3 * (tone + noise)).astype(np.float32)
