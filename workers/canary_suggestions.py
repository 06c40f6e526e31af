"""A canary's suggestions: for its half of the tasks, the candidate's in place of those of the version in service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clapboard.errors import NotFoundError
from clapboard.labels.label_space import LabelSpace
from clapboard.project.canary import CanaryArm, canary_arm
from clapboard.project.known_tasks import embedded
from clapboard.store import Store
from clapboard.store.prediction_records import StoredPrediction
from clapboard.store.tasks import KnownTask
from clapboard.store.trials import Kind
from clapboard.suggest import prediction
from clapboard.suggest.head import Head


@dataclass(frozen=True)
class CanarySuggestions:
    """What makes them, for one label space."""

    store: Store
    arm: CanaryArm
    label_space: LabelSpace
    head: Head

    def of_tasks(self, tasks: Sequence[KnownTask], shown_as: str) -> dict[int, StoredPrediction]:
        """By task, the predictions of the canary's half, as far as the candidate has embedded it."""
        half = [task for task in tasks if self.arm.has(task.task, shown_as)]
        embeddings = embedded(self.store, half, self.arm.serving.encoder) if half else {}
        ready = [task for task in half if task.task in embeddings]
        version = self.arm.serving.model_version
        windows = [embeddings[task.task] for task in ready]
        predictions = prediction.predict_many(self.label_space, windows, self.head, version)
        project = self.arm.trial.project
        return {
            task.task: StoredPrediction(project, task.task, version, task.uri_key, made.score, made.result)
            for task, made in zip(ready, predictions, strict=True)
        }


def canary_suggestions(store: Store, project: int, label_space: LabelSpace) -> CanarySuggestions | None:
    """Those of the project's open canary; None if there is none, or they can't be made."""
    trial = store.trials.open(project, Kind.CANARY)
    arm = canary_arm(store, trial, store.catalog.encoders(), label_space) if trial else None
    if arm is None:
        return None
    try:
        head = store.versions.head(arm.serving.encoder.version, arm.serving.space_id, arm.serving.head)
    except NotFoundError:
        return None
    return CanarySuggestions(store, arm, label_space, head)
