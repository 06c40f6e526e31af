"""A benchmark: its clips, what is true of each, and the folds or splits by which its authors judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clapboard.captions import ensemble
from clapboard.prompts import TEMPLATE, spoken

Kind = Literal["labels", "tags", "captions"]
"""One label a clip (accuracy), any number of them (mAP), or sentences (retrieval)."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class BenchmarkClip:
    """A clip that the data set's table lists."""

    name: str  # as the table has it
    path: Path | None  # None: its audio isn't there
    part: str  # the fold or split that it belongs to
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """A data set on disk. With `folds`, each part tests what the others teach; otherwise parts are named by split."""

    key: str
    title: str
    kind: Kind
    clips: tuple[BenchmarkClip, ...]
    labels: tuple[str, ...] = ()  # L
    folds: bool = False
    template: str = TEMPLATE

    @property
    def tested(self) -> tuple[BenchmarkClip, ...]:
        """The clips that figures are about: those of the test split, or all where there are folds."""
        return tuple(clip for clip in self.clips if self.folds or clip.part == TEST)

    def prompts(self, label: str, *, captions: bool = False) -> tuple[str, ...]:
        """The texts that the label is called by: the template's, and its captions' where they are asked for."""
        own = self.template.format(spoken(label))
        return tuple(dict.fromkeys([own, *ensemble(label)])) if captions else (own,)


@dataclass(frozen=True)
class Source:
    """Where a data set is looked for, and how it is read."""

    key: str
    title: str
    folders: tuple[str, ...]  # its usual folder names, in lower case and without signs; more may follow in the real one
    looked_for: str  # what the folder must hold, for people
    is_in: Callable[[Path], bool]
    read: Callable[[Path], Benchmark]
