"""Benchmarks: clips with their true labels or captions, and the folds or splits that their authors define."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clapboard.labels.captions import ensemble
from clapboard.labels.prompts import TEMPLATE, spoken

Kind = Literal["labels", "tags", "captions"]
"""What the clips have: one label (accuracy), any number of labels (mAP), or captions (retrieval)."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class BenchmarkClip:
    """A clip that the data set's table lists."""

    name: str  # as in the table
    path: Path | None  # None: its audio is missing
    part: str  # its fold or split
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """A data set on disk. With `folds`, each part is tested after training on the others; else parts are splits."""

    key: str
    title: str
    kind: Kind
    clips: tuple[BenchmarkClip, ...]
    labels: tuple[str, ...] = ()  # L
    folds: bool = False
    template: str = TEMPLATE

    @property
    def tested(self) -> tuple[BenchmarkClip, ...]:
        """The clips to test on: all of them where there are folds, or else those of the test split."""
        return tuple(clip for clip in self.clips if self.folds or clip.part == TEST)

    def prompts(self, label: str, *, captions: bool = False) -> tuple[str, ...]:
        """The label's texts: the template's, and with `captions` an ensemble of captions too."""
        own = self.template.format(spoken(label))
        return tuple(dict.fromkeys([own, *ensemble(label)])) if captions else (own,)


@dataclass(frozen=True)
class Source:
    """How to find a data set on disk, and how to read it."""

    key: str
    title: str
    folders: tuple[str, ...]  # beginnings of its usual folder names, in lower case and without punctuation
    looked_for: str  # the file that the folder must have, for messages
    is_in: Callable[[Path], bool]
    read: Callable[[Path], Benchmark]
