"""Which labels may judge a candidate by cross-fitting, and what earlier candidates were judged by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from clapboard.feedback.consensus import TaskLabels
from clapboard.project.serving import Serving
from clapboard.store import Store


@dataclass(frozen=True)
class Evidence:
    """The labels that may judge.

    A label given with a suggestion in view leans towards what was suggested. If the suggestion came from the encoder
    that serves, such labels favour the version in service, and hold a candidate back at worst. Those given with another
    encoder's suggestion in view might favour the candidate, so they are no evidence; nor are labels accepted in bulk,
    and recordings that the serving encoder has learnt from.
    """

    serving: str  # the encoder's part of a model version
    suggested_by: Mapping[int, set[str]]  # the encoders whose suggestions were in view, by task
    learnt: set[str] | None  # recordings and contents; None: unknown, so nothing is evidence

    @classmethod
    def of(cls, store: Store, project: int, serving: Serving, learnt: set[str] | None) -> Self:
        """The project's evidence."""
        suggested_by: dict[int, set[str]] = defaultdict(set)
        for model_version, tasks in store.annotations.answered(project).items():
            for task in tasks:
                suggested_by[task].add(_encoder(model_version))
        return cls(_encoder(serving.model_version), suggested_by, learnt)

    def controls(self, task: int, group: str, content: str, labels: TaskLabels) -> tuple[str, ...]:
        """The controls whose labels of the task may judge."""
        if self.learnt is None or {group, content} & self.learnt:
            return ()
        if self.suggested_by.get(task, set()) - {self.serving}:
            return ()
        return tuple(control for control, agreed in labels.items() if not agreed.bulk)


def judged_before(store: Store, project: int) -> dict[str, list[list[str]]]:
    """The recordings that each judged candidate was judged by, by the kind of look."""
    looks: dict[str, list[list[str]]] = defaultdict(list)
    for version in store.versions.of_project(project):
        for look in (version.manifest.get("verdict") or {}).get("looks", ()):
            looks[look["look"]].append(list(look["recordings"]))
    return dict(looks)


def _encoder(model_version: str) -> str:
    """The encoder's part of a model version's name, such as `mini-3f2a9c1d`; a canary's whole name."""
    return model_version if ".head-canary-" in model_version else model_version.partition(".")[0]
