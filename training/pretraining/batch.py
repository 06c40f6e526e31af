"""The batch of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clapboard.audio.windows import Waveform
from training.pretraining.loss import Meaning
from training.pretraining.mixtures import Mixture


@dataclass(frozen=True)
class Batch:
    """This process's sounds and captions of a step. All processes have the same shared captions."""

    sounds: list[Waveform]  # B of them, [T] each
    meanings: list[Meaning]
    captions: list[str]  # one for each sound
    caption_meanings: list[Meaning]
    shared_captions: list[str] = field(default_factory=list)  # also of kinds that aren't in the batch, and neutral ones
    shared_meanings: list[Meaning] = field(default_factory=list)
    mixtures: list[Mixture] = field(default_factory=list)  # for the frame loss; equally many in all processes


def respelt(text: str, rng: np.random.Generator) -> str:
    """The text, sometimes in lower case or without its full stop, since people write both."""
    draw = rng.random()
    return text.lower() if draw < 0.25 else text.rstrip(".") if draw < 0.4 else text
