"""What a pair must be like to be kept; for each that isn't, one reason."""

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
"""16-bit samples at 48 kHz, `[T]`: what is kept of a sound, and what it is known by."""

_FULL_SCALE = 32_767


class Reason(enum.StrEnum):
    """Why a pair, or one caption or tag of it, is left out."""

    SET_ASIDE = "set_aside"  # a task for judging, or a sound that such a task has
    BULK = "accepted_in_bulk"  # nobody listened
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
    DUPLICATE = "duplicate"  # joined with the first of the same sound


@dataclass(frozen=True)
class Rules:
    """The bounds; tags are judged by no bound, only captions."""

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
                "Bounds of length, loudness and clipping are finite numbers: take a large one for none."
            )
        if self.min_s > self.max_s or self.min_words > self.max_words:
            raise TrainingError("The least length is above the greatest, so that nothing would be kept: swap them.")

    def caption_fault(self, caption: str, is_wanted: Callable[[str], bool]) -> Reason | None:
        """Why the caption can't be kept; None if it can. `is_wanted` judges its language."""
        num_words = len(caption.split())
        if num_words < self.min_words:
            return Reason.FEW_WORDS
        if num_words > self.max_words:
            return Reason.MANY_WORDS
        return None if is_wanted(caption) else Reason.LANGUAGE

    def sound_fault(self, pcm: Pcm, duration_s: float) -> Reason | None:
        """Why the sound `[T]` can't be kept; None if it can."""
        if duration_s < self.min_s:
            return Reason.SHORT
        if duration_s > self.max_s:
            return Reason.LONG
        if loudness(pcm / np.float32(_FULL_SCALE + 1)) < self.min_lufs:
            return Reason.QUIET
        at_full_scale = (pcm >= _FULL_SCALE) | (pcm <= -_FULL_SCALE)
        return Reason.CLIPPED if at_full_scale.mean() > self.max_clipped_share else None
