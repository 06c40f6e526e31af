"""Takes replaced versions out of Label Studio: all their predictions but those that people have seen or may see.

Label Studio deletes a whole version at once (1,000 predictions in 4 s on SQLite) or single predictions (0.13 s each),
and nothing in between. So the predictions that stay are moved to another version while theirs is deleted, and back
afterwards: two requests of 0.18 s for each, once in its life. They keep their ids, and annotations their parents.

What leaves is a name in Label Studio: that of all heads of an encoder and label space (`prediction.shown_name`), or,
from earlier releases, that of a single version.

A prediction stays if an annotation answered it, by the ledger. And all predictions of a version stay until
`CLAPBOARD_PRUNE_AFTER_S` after it was replaced: a page that was opened earlier sends the prediction that its form was
made from, and if that is gone, Label Studio refuses the annotation («Invalid pk», status 400).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from clapboard.label_studio.client import LabelStudioClient
from clapboard.project.lock import ProjectLocks
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.suggest.prediction import shown_name

KEPT = " (kept)"
"""The suffix of the version that predictions which stay have while the others are deleted."""


@dataclass(frozen=True)
class Pruned:
    """How many versions left Label Studio, and which have to wait, by the time (seconds since 1970) they may go."""

    num_gone: int = 0
    waiting: Mapping[str, float] | None = None

    @property
    def next_at(self) -> float | None:
        """When the first waiting version may go."""
        return min(self.waiting.values()) if self.waiting else None


def names_of(model_version: str) -> set[str]:
    """The names that the version may have in Label Studio: that of today's releases, and its own of earlier ones."""
    return {model_version, shown_name(model_version)}


class ReplacedVersions:
    """Takes the replaced versions of a project out of Label Studio. The caller holds the project's lock."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudioClient, locks: ProjectLocks) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._locks = locks

    def take_out(self, project: int, replaced: Collection[str]) -> Pruned:
        """Take out those of the replaced versions that nobody can have open any more. Raises `LabelStudioError`."""
        num_stored = self._finish_interrupted(project, self._client.model_versions(project))
        due_at = self._due_at(project)
        now = self._store.clock()
        # A version without a time isn't kept as one any more, so it was replaced long ago, or it never served.
        waiting = {name: due_at[name] for name in num_stored if name in replaced and due_at.get(name, 0.0) > now}
        answered = self._answered(project)
        num_gone = 0
        for name, num_predictions in num_stored.items():
            kept_ids = answered.get(name, set())
            if name in replaced and name not in waiting and num_predictions > len(kept_ids):
                self._locks.check(project)
                self._take_out(project, name, num_predictions, kept_ids)
                num_gone += 1
        return Pruned(num_gone, waiting)

    def _due_at(self, project: int) -> dict[str, float]:
        """When each name may go whose versions served: some time after the last of them was replaced."""
        versions = self._store.versions.of_project(project)
        served = sorted(
            (version.promoted_at, version.model_version) for version in versions if version.promoted_at is not None
        )
        after_s = self._settings.prune_after_s
        due_at: dict[str, float] = {}
        for (_, name), (replaced_at, _) in itertools.pairwise(served):
            due_at[name] = due_at[shown_name(name)] = replaced_at + after_s
        if served:  # the base model's zero-shot served before there was any version
            known = {name for version in versions for name in names_of(version.model_version)}
            for name in set(self._store.predictions.names(project)) - known:
                due_at[name] = served[0][0] + after_s
        return due_at

    def _answered(self, project: int) -> dict[str, set[int]]:
        """By name, the ids of tasks that were annotated with a suggestion of that name in view."""
        task_ids: dict[str, set[int]] = {}
        for model_version, answered in self._store.annotations.answered(project).items():
            for name in names_of(model_version):
                task_ids.setdefault(name, set()).update(answered)
        return task_ids

    def _take_out(self, project: int, name: str, num_predictions: int, kept_ids: set[int]) -> None:
        other_ids = self._store.predictions.delivered_tasks(project, name) - kept_ids
        if kept_ids and num_predictions - len(kept_ids) <= len(other_ids) <= 2 * len(kept_ids):  # cheaper one by one
            self._client.delete_predictions(self._prediction_ids(project, other_ids, name))
            if self._client.model_versions(project).get(name, 0) <= len(kept_ids):
                return
        for prediction_id in self._prediction_ids(project, kept_ids, name):
            self._client.set_prediction_version(prediction_id, name + KEPT)
        self._client.delete_model_version(project, name)
        self._restore(project, name, kept_ids)

    def _finish_interrupted(self, project: int, num_stored: dict[str, int]) -> dict[str, int]:
        """Restore what a process left that died while taking a version out; the number of predictions by version."""
        interrupted = [name.removesuffix(KEPT) for name in num_stored if name.endswith(KEPT)]
        for name in interrupted:
            self._restore(project, name, None)
        return self._client.model_versions(project) if interrupted else num_stored

    def _restore(self, project: int, name: str, task_ids: set[int] | None) -> None:
        """Move the predictions that stay back to their version: those of these tasks, or of all."""
        for prediction_id in self._prediction_ids(project, task_ids, name + KEPT):
            self._client.set_prediction_version(prediction_id, name)

    def _prediction_ids(self, project: int, task_ids: set[int] | None, name: str) -> list[int]:
        if task_ids is not None and not task_ids:  # Label Studio takes an empty list of tasks for all tasks
            return []
        by_task = self._client.predictions(project, task_ids, name)
        return [prediction_id for _, prediction_ids in by_task for prediction_id in prediction_ids]
