"""A project's labels and embeddings → a fitted head, and whether people would notice it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clapboard.feedback.consensus import TaskLabels
from clapboard.labels.label_space import LabelSpace
from clapboard.project.known_tasks import embedded
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.suggest.head import Head, scores_of_all
from clapboard.suggest.scoring import Array, mean_direction

if TYPE_CHECKING:
    from training.fit_head import LabelledEmbeddings

POOL_SIZE = 20_000
"""How many clips a head is centred on at most, unless more are labelled."""

LEAST_CHANGE = 0.02
"""A head that changes no suggestion, and no score by more than this, isn't worth a rollout."""


@dataclass(frozen=True)
class FittedHead:
    """A head, and how many labels it was fitted to; the zero-shot head where there are none."""

    head: Head
    num_labels: int


def embedding_pool(store: Store, project: int, encoder: Encoder, labelled_ids: set[int]) -> dict[int, Array]:
    """Embeddings `[W, D]` by task id: of all labelled tasks, and of others up to `POOL_SIZE`; of none held out."""
    embeddings: dict[int, Array] = {}
    for page in store.tasks.of_project(project):
        has_room = len(embeddings) < POOL_SIZE
        tasks = [task for task in page if not task.held_out and (has_room or task.task in labelled_ids)]
        embeddings |= embedded(store, tasks, encoder)
    return embeddings


def fit(
    label_space: LabelSpace,
    zero_shot: Head,
    labels: Mapping[int, TaskLabels],
    embeddings: Mapping[int, Array],
) -> FittedHead:
    """The head that fits the labels, by task id and control, over a pool of embeddings `[W, D]` by task id."""
    from training.fit_head import fit_head  # it imports scipy: only a worker that fits needs to wait for that

    examples = _examples(label_space, labels, embeddings)
    if not examples:
        return FittedHead(zero_shot, 0)
    pool = np.stack([mean_direction(windows) for windows in embeddings.values()])  # [N, D]
    num_labels = max(len(example.embeddings) for example in examples.values())
    return FittedHead(fit_head(label_space, zero_shot, examples, pool), num_labels)


def is_noticeable(label_space: LabelSpace, before: Head, after: Head, embeddings: Mapping[int, Array]) -> bool:
    """Whether the heads score any of the clips differently enough; True where there is no clip to tell by."""
    clips = list(embeddings.values())
    if not clips:
        return True
    for control, old, new in zip(label_space.predicted, before.controls, after.controls, strict=True):
        old_scores, new_scores = scores_of_all(control, old, clips), scores_of_all(control, new, clips)  # [N, L]
        if (old_scores.argmax(axis=1) != new_scores.argmax(axis=1)).any():
            return True
        if np.abs(old_scores - new_scores).max() > LEAST_CHANGE:
            return True
    return False


def _examples(
    label_space: LabelSpace, labels: Mapping[int, TaskLabels], embeddings: Mapping[int, Array]
) -> dict[str, LabelledEmbeddings]:
    """By control, the embeddings, targets and weights of the tasks that are labelled for it."""
    from training.fit_head import LabelledEmbeddings

    examples = {}
    for control in label_space.predicted:
        columns = {label.value: column for column, label in enumerate(control.labels)}
        rows = [
            (embeddings[task], by_control[control.name])
            for task, by_control in labels.items()
            if task in embeddings and control.name in by_control
        ]
        if not rows:
            continue
        targets = np.zeros((len(rows), len(columns)), np.float32)  # [N, L]
        for row, (_, task_labels) in enumerate(rows):
            targets[row, [columns[label] for label in task_labels.labels]] = 1.0
        examples[control.name] = LabelledEmbeddings(
            np.stack([mean_direction(windows) for windows, _ in rows]),
            targets,
            np.array([task_labels.weight for _, task_labels in rows], np.float32),
        )
    return examples
