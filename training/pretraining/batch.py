"""What one training step hears and reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clapboard.audio import Waveform
from training.pretraining.loss import Meaning


@dataclass(frozen=True)
class Batch:
    """A step's sounds and captions in this process. The captions that all processes share come last."""

    sounds: list[Waveform]  # B of them, [T] each
    meanings: list[Meaning]
    captions: list[str]  # one of each sound
    caption_meanings: list[Meaning]
    shared_captions: list[str] = field(default_factory=list)  # of kinds that may not be in the batch, and neutral ones
    shared_meanings: list[Meaning] = field(default_factory=list)


def respelt(text: str, rng: np.random.Generator) -> str:
    """The text, at times in small letters or without its full stop: people write both."""
    draw = rng.random()
    return text.lower() if draw < 0.25 else text.rstrip(".") if draw < 0.4 else text
