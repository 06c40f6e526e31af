"""What the gate decided of a candidate, and the figures behind it: stored with the version, and shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from training.evaluate import Report

Look = Literal["held out", "all"]
"""The evidence that was looked at: the held-out clips alone, or the cross-fitted labelled clips too."""


@dataclass(frozen=True)
class Difference:
    """The candidate's lead over the contender `than`."""

    than: str
    estimate: float  # in accuracy; in mAP where labels don't exclude each other
    nearness: float  # the mean lead in `significance.nearness`
    chance: float  # of such a lead in nearness if both were equally good


@dataclass(frozen=True)
class Change:
    """A class's recall (average precision where labels don't exclude each other) in service and with the candidate."""

    control: str
    label: str
    num_clips: int
    before: float
    after: float


@dataclass(frozen=True)
class Comparison:
    """The reports of all contenders on one control."""

    control: str
    candidate: Report
    in_service: Report
    zero_shot: Report


@dataclass(frozen=True)
class Looked:
    """One look at the evidence. A later candidate that is judged on the same recordings needs a smaller chance."""

    look: Look
    number: int  # of candidates judged on the same evidence, this one included
    allowed: float  # the largest chance that passes
    recordings: tuple[str, ...]  # digests of their names


@dataclass(frozen=True)
class Likely:
    """What a trial of a candidate that is likely but not surely better than the version in service goes on from."""

    leads: tuple[float, ...]  # over the version in service, in nearness, one for each recording
    num_folds: int
    right: int  # how many more clips it labels correctly; 0 where a clip may have several labels
    allowed: float  # the largest chance with which it would have been promoted


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate is promoted, the reason in one sentence, and the figures behind it."""

    promote: bool
    reason: str
    explanation: str  # how it came about, in plain words
    num_clips: int
    num_recordings: int
    num_held_out: int  # of the clips
    num_folds: int  # 0: held-out clips alone
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]  # of each class with enough clips, the largest fall first
    reports: tuple[Comparison, ...]
    looks: tuple[Looked, ...] = ()
    likely: Likely | None = None

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        values: dict[str, Any] = TypeAdapter(Verdict).dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The verdict that `to_json` returned. Raises `pydantic.ValidationError` for other values."""
        reports = [
            {name: Report.from_json(part) if name != "control" else part for name, part in comparison.items()}
            for comparison in values["reports"]
        ]
        return TypeAdapter(cls).validate_python(dict(values) | {"reports": reports})
