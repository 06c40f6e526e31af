"""The rules that a pair must pass, and the reasons for which it is left out."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clapboard.errors import TrainingError
from training.corpus.loudness import loudness

Pcm = npt.NDArray[np.int16]
"""16-bit samples at 48 kHz, `[T]`: the form in which sounds are stored and compared."""

_FULL_SCALE = 32_767


class Reason(enum.StrEnum):
    """The reason for which a pair, or one of its captions or tags, is left out."""

    HELD_OUT = "set_aside"  # a held-out task, or a sound that such a task has
    BULK = "accepted_in_bulk"  # nobody has listened to it
    MISSING_TEXT = "missing_text"
    WORDLESS_TAG = "tag_without_word"
    FEW_WORDS = "too_few_words"
    MANY_WORDS = "too_many_words"
    LANGUAGE = "other_language"
    UNREADABLE = "unreadable"
    SHORT = "too_short"
    LONG = "too_long"
    QUIET = "too_quiet"
    CLIPPED = "clipped"
    DUPLICATE = "duplicate"  # merged into the first pair with the same sound


@dataclass(frozen=True)
class Rules:
    """The limits that sounds and captions must keep; tags have none."""

    min_s: float = 0.3
    max_s: float = 60.0
    min_words: int = 1
    max_words: int = 60
    languages: tuple[str, ...] = ("en",)  # empty: any
    min_lufs: float = -60.0
    max_clipped_share: float = 0.01  # of samples at full scale; a full-scale sine has 0.006

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.min_s, self.max_s, self.min_lufs, self.max_clipped_share))):
            raise TrainingError(
                "Limits of length, loudness and clipping must be finite numbers: for no limit, choose a large one."
            )
        if self.min_s > self.max_s or self.min_words > self.max_words:
            raise TrainingError("The minimum length is above the maximum, so nothing would be kept: swap them.")

    def caption_fault(self, caption: str, is_wanted: Callable[[str], bool]) -> Reason | None:
        """The reason to drop the caption; None to keep it. `is_wanted` judges its language."""
        num_words = len(caption.split())
        if num_words < self.min_words:
            return Reason.FEW_WORDS
        if num_words > self.max_words:
            return Reason.MANY_WORDS
        return None if is_wanted(caption) else Reason.LANGUAGE

    def sound_fault(self, pcm: Pcm, duration_s: float) -> Reason | None:
        """The reason to drop the sound `[T]`; None to keep it."""
        if duration_s < self.min_s:
            return Reason.SHORT
        if duration_s > self.max_s:
            return Reason.LONG
        if loudness(pcm / np.float32(_FULL_SCALE + 1)) < self.min_lufs:
            return Reason.QUIET
        at_full_scale = (pcm >= _FULL_SCALE) | (pcm <= -_FULL_SCALE)
        return Reason.CLIPPED if at_full_scale.mean() > self.max_clipped_share else None
