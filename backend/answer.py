"""A `/predict` while it is being answered, and its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from clapboard.serving import Serving
from clapboard.store.predictions import TakenPrediction
from clapboard.store.tasks import KnownTask


@dataclass(frozen=True)
class PredictAnswer:
    """The answer to `/predict`: one entry per task, each a prediction or the empty list."""

    model_version: str
    found: list[TakenPrediction | None]

    @property
    def results(self) -> list[dict[str, Any] | list[Any]]:
        """The entries."""
        return [one.as_json() if one else [] for one in self.found]

    @property
    def num_empty(self) -> int:
        """How many entries are empty."""
        return self.found.count(None)

    def to_json(self) -> bytes:
        """The answer's body. Predictions go into it as they are kept, unread."""
        entries = ",".join(one.as_text() if one else "[]" for one in self.found)
        return f'{{"results":[{entries}],"model_version":{json.dumps(self.model_version)}}}'.encode()


@dataclass
class OpenRequest:
    """A `/predict` that is being answered."""

    project: int
    served: Serving
    began_at: float
    tasks: list[int | None]  # None: nothing can be said about this one
    known: dict[int, KnownTask] = field(default_factory=dict)
    waiting_for: list[int] = field(default_factory=list)  # jobs

    @property
    def model_version(self) -> str:
        """What the answer is named for, whatever is promoted while it is being made."""
        return self.served.model_version

    @cached_property
    def keys(self) -> dict[int, str]:
        """The URI key of each task that can be predicted, once all are admitted."""
        return {task: known.uri_key for task, known in self.known.items()}

    def answer(self, taken: Mapping[int, TakenPrediction]) -> PredictAnswer:
        """The answer of these predictions, which are by task."""
        left = dict(taken)
        # A task named twice in one request is answered once: Label Studio would store it twice.
        found = [left.pop(task, None) if task is not None else None for task in self.tasks]
        return PredictAnswer(self.model_version, found)
