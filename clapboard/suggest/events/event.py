"""An event, and the rules by which events are found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Event:
    """A label that sounds from `start_s` to `end_s`, in seconds of the recording; `label` is its index."""

    start_s: float
    end_s: float
    label: int
    score: float  # in [0, 1]; how sure it is that the label sounds there, whatever the extent


@dataclass(frozen=True)
class LabelRules:
    """What an event of one label must be: its score, its length, and the gap that still belongs to one event."""

    threshold: float = DEFAULT_THRESHOLD
    min_s: float = 0.25
    max_s: float = math.inf  # a longer one is cut into pieces of equal length
    gap_s: float = 1.0  # events of one label that are nearer than that are one


@dataclass(frozen=True)
class EventRules:
    """The rules of each label, in the labels' order, and how many events a recording may have in all."""

    labels: tuple[LabelRules, ...]
    max_events: int = 200

    @classmethod
    def default(cls, num_labels: int) -> Self:
        """The same defaults for each label."""
        return cls((LabelRules(),) * num_labels)

    @classmethod
    def of(cls, labels: Sequence[LabelRules], max_events: int = 200) -> Self:
        """The rules of these labels."""
        return cls(tuple(labels), max_events)
