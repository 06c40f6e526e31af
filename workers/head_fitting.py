"""A project's labels and embeddings → a fitted head, and whether people would notice it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clapboard.labels.label_space import LabelSpace
from clapboard.suggest.head import Head, scores_of_all
from clapboard.suggest.scoring import Array, mean_directions
from workers.label_sample import LabelSample

if TYPE_CHECKING:
    from training.fit_head import LabelledEmbeddings

LEAST_CHANGE = 0.02
"""A head that changes no suggestion, and no score by more than this, isn't worth a rollout."""


@dataclass(frozen=True)
class FittedHead:
    """A head, and how many labels it was fitted to; the zero-shot head where there are none."""

    head: Head
    num_labels: int


def fit(label_space: LabelSpace, zero_shot: Head, sample: LabelSample) -> FittedHead:
    """The head that fits the sample's labels, centred on all of its clips."""
    from training.fit_head import fit_head  # it imports scipy: only a worker that fits needs to wait for that

    examples = _examples(label_space, sample)
    if not examples:
        return FittedHead(zero_shot, 0)
    pool = list(sample.pool.values())
    centred_on = mean_directions(pool) if pool else np.stack(list(sample.means.values()))  # [N, D]
    num_labels = max(len(example.embeddings) for example in examples.values())
    return FittedHead(fit_head(label_space, zero_shot, examples, centred_on), num_labels)


def is_noticeable(label_space: LabelSpace, before: Head, after: Head, recordings: Iterable[Array]) -> bool:
    """Whether the heads score any recording `[W, D]` differently enough to be noticed; True where there is none."""
    clips = list(recordings)
    if not clips:
        return True
    for control, old, new in zip(label_space.predicted, before.controls, after.controls, strict=True):
        old_scores, new_scores = scores_of_all(control, old, clips), scores_of_all(control, new, clips)  # [N, L]
        if (old_scores.argmax(axis=1) != new_scores.argmax(axis=1)).any():
            return True
        if np.abs(old_scores - new_scores).max() > LEAST_CHANGE:
            return True
    return False


def _examples(label_space: LabelSpace, sample: LabelSample) -> dict[str, LabelledEmbeddings]:
    """By control, the embeddings, targets and weights of the clips that it is fitted to."""
    from training.fit_head import LabelledEmbeddings

    examples = {}
    for control in label_space.predicted:
        columns = {label.value: column for column, label in enumerate(control.labels)}
        rows = [
            (sample.means[task], sample.labels[task][control.name], weight)
            for task, weight in sample.clips[control.name].items()
            if task in sample.means and control.name in sample.labels.get(task, {})
        ]
        if not rows:
            continue
        targets = np.zeros((len(rows), len(columns)), np.float32)  # [N, L]
        for row, (_, agreed, _) in enumerate(rows):
            targets[row, [columns[label] for label in agreed.labels]] = 1.0
        examples[control.name] = LabelledEmbeddings(
            np.stack([mean for mean, _, _ in rows]),
            targets,
            np.array([agreed.weight * weight for _, agreed, weight in rows], np.float32),
        )
    return examples
