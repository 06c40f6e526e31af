"""What people said since → a head that says it better, in seconds, and its rollout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clapboard import prediction
from clapboard.feedback.consensus import Consensus, consensus
from clapboard.head import ZERO_SHOT, Head, scores_of_all
from clapboard.known_tasks import embedded
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.scoring import Array, mean_direction
from clapboard.serving import Serving, find_serving
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.tasks import KnownTask
from clapboard.store.versions import Version
from training.head import LabelledEmbeddings, fit_head
from workers.encoders import EncoderPool
from workers.heads import Heads
from workers.rollout import Rollout

POOL_SIZE = 20_000
"""Clips that a head is centred on, at most."""

LEAST_CHANGE = 0.02
"""A head that changes no suggestion, and no score by more than this, isn't worth bothering Label Studio."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refitted:
    """What came of it. `num_waiting` tasks are to be pushed before it serves; `num_missing` aren't embedded yet."""

    model_version: str
    num_labels: int
    num_waiting: int
    changed: bool
    num_missing: int = 0

    def __str__(self) -> str:
        done = "promoted" if self.changed else "still right"
        return f"{self.num_labels} labels; {self.model_version} is {done}."


class Refitter:
    """Runs a project's `learn` job."""

    def __init__(self, settings: Settings, store: Store, encoders: EncoderPool, heads: Heads, rollout: Rollout) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._heads = heads
        self._rollout = rollout

    def run(self, project: int, *, on_page: Callable[[int], None] = lambda _num_tasks: None) -> Refitted:
        """Enter what is new in the inbox, fit, and roll the head out; `on_page` hears of the tasks gone through.

        Raises `NotFoundError` for a project that never introduced itself, `LabelConfigError`, `NoWorkerError`,
        `LabelStudioError`.
        """
        self._store.ledger.catch_up()
        label_config = self._store.catalog.project(project).label_config
        label_space = parse_label_config(label_config)
        self._store.catalog.put_label_space(prediction.space_id(label_space), label_config)
        pointer = _name(self._store.versions.promoted(project))
        if (begun := self._begun(project, label_space)) is not None:
            rolled = self._rollout.run(begun, instead_of=pointer, waits_for_all=False, on_page=on_page)
            if rolled.num_waiting:
                return Refitted(begun.model_version, begun.manifest["num_labels"], rolled.num_waiting, changed=True)
        return self._refit(project, label_space, on_page)

    def _refit(self, project: int, label_space: LabelSpace, on_page: Callable[[int], None]) -> Refitted:
        # The pointer first: whatever is promoted from here on is not to be replaced by what is fitted without it.
        promoted = self._store.versions.promoted(project)
        served = find_serving(self._store, self._settings.model, project, label_space)
        num_entries = self._store.ledger.num_entries(project)
        agreed = consensus(self._store.ledger.standing(project), label_space)
        tasks, vectors = self._pool(project, served, set(agreed.labels))
        encoder = self._encoders.get(served.encoder.model)
        _, zero_shot = self._heads.get(encoder, served.space_id)
        labelled = _labelled(label_space, agreed, tasks, vectors)
        head, name = zero_shot, ZERO_SHOT
        if labelled:
            pool = np.stack([mean_direction(windows) for windows in vectors.values()])
            head = fit_head(label_space, zero_shot, labelled, pool)
            name = head.name
        num_labels = max((len(one.embeddings) for one in labelled.values()), default=0)
        version = Version(
            project,
            prediction.model_version(encoder.identity, label_space, name),
            served.encoder.model,
            served.encoder.version,
            name,
            served.space_id,
            manifest={
                "kind": "head" if labelled else ZERO_SHOT,
                "num_labels": num_labels,
                "num_entries": num_entries,
            },
        )
        if not self._is_worth_it(version, served, promoted, label_space, head, vectors):
            return Refitted(served.model_version, num_labels, 0, changed=False)
        is_new = self._store.versions.put(version, head if labelled else None)
        rolled = self._rollout.run(
            version, is_new=is_new, instead_of=_name(promoted), waits_for_all=False, on_page=on_page
        )
        return Refitted(version.model_version, num_labels, rolled.num_waiting, True, rolled.num_missing)

    def _begun(self, project: int, label_space: LabelSpace) -> Version | None:
        """A head on its way in that was fitted to all that is said by now.

        It is brought to its end first: while recordings are being embedded, each fit is centred a little differently.
        """
        promoted = self._store.versions.promoted(project)
        served = find_serving(self._store, self._settings.model, project, label_space)
        since = promoted.promoted_at or 0.0 if promoted else 0.0
        num_entries = self._store.ledger.num_entries(project)
        for version in reversed(self._store.versions.of_project(project)):
            waits = version.promoted_at is None and version.created_at >= since
            fits = (version.encoder_version, version.space_id) == (served.encoder.version, served.space_id)
            if waits and fits and version.manifest.get("num_entries") == num_entries:
                return version
        return None

    def _is_worth_it(
        self,
        version: Version,
        served: Serving,
        promoted: Version | None,
        label_space: LabelSpace,
        head: Head,
        vectors: dict[int, Array],
    ) -> bool:
        """Whether people would notice the version."""
        if version.model_version != served.model_version:
            _, before = self._heads.get(self._encoders.get(served.encoder.model), served.space_id, served.head)
            return _differ(label_space, before, head, vectors)
        # It answers already; but what was predicted before, under another label config, may be of another version.
        if promoted is not None:
            return promoted.model_version != version.model_version
        return bool(set(self._store.predictions.model_versions(version.project)) - {version.model_version})

    def _pool(self, project: int, served: Serving, wanted: set[int]) -> tuple[dict[int, KnownTask], dict[int, Array]]:
        """Tasks and their embeddings: all that are labelled, and others up to `POOL_SIZE`; none that is set aside."""
        tasks: dict[int, KnownTask] = {}
        vectors: dict[int, Array] = {}
        for page in self._store.tasks.of_project(project):
            room = len(vectors) < POOL_SIZE
            some = [task for task in page if not task.set_aside and (room or task.task in wanted)]
            tasks |= {task.task: task for task in some}
            vectors |= embedded(self._store, some, served.encoder)
        return tasks, vectors


def _name(promoted: Version | None) -> str:
    """What the pointer says: nothing where the base model serves."""
    return promoted.model_version if promoted else ""


def _labelled(
    label_space: LabelSpace, agreed: Consensus, tasks: dict[int, KnownTask], vectors: dict[int, Array]
) -> dict[str, LabelledEmbeddings]:
    """By control, the embeddings and targets of the tasks that have labels for it."""
    found = {}
    for control in label_space.predicted:
        index = {label.value: position for position, label in enumerate(control.labels)}
        rows = [
            (vectors[task], labels[control.name])
            for task, labels in agreed.labels.items()
            if task in tasks and task in vectors and control.name in labels
        ]
        if not rows:
            continue
        targets = np.zeros((len(rows), len(index)), np.float32)
        for row, (_, said) in enumerate(rows):
            targets[row, [index[label] for label in said.labels]] = 1.0
        found[control.name] = LabelledEmbeddings(
            np.stack([mean_direction(windows) for windows, _ in rows]),
            targets,
            np.array([said.weight for _, said in rows], np.float32),
        )
    return found


def _differ(label_space: LabelSpace, before: Head, after: Head, vectors: dict[int, Array]) -> bool:
    """Whether the heads tell any of the clips apart enough to be worth a rollout."""
    recordings = list(vectors.values())
    for control, old, new in zip(label_space.predicted, before.controls, after.controls, strict=True):
        if recordings:
            was, now = scores_of_all(control, old, recordings), scores_of_all(control, new, recordings)  # [N, L]
            if (was.argmax(axis=1) != now.argmax(axis=1)).any() or np.abs(was - now).max() > LEAST_CHANGE:
                return True
    return not recordings
