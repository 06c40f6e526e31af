"""Chooses which stages of the audio tower learn, by how many labels there are."""

from __future__ import annotations

from clapboard.errors import TrainingError
from clapboard.labels.label_space import Control, LabelSpace
from clapboard.plurals import counted, plural
from training.finetuning.labelled import Counts
from training.finetuning.tower_stages import TrainableStages
from training.finetuning.trainer import FinetuneConfig


def choose_trainable_stages(label_space: LabelSpace, counts: Counts, config: FinetuneConfig) -> TrainableStages:
    """The stages that the config names; for `auto`, as many as there are labels enough for in train and validation.

    The smallest class with at least `min_labels` clips decides. Where labels don't exclude each other, having a label
    and not having it are two classes. Raises `TrainingError` if there are fewer than two such classes, or no clips to
    learn from or to validate on.
    """
    sizes = [size for control in label_space.predicted if (size := _smallest_class(control, counts, config.min_labels))]
    if not sizes:
        raise TrainingError(_too_few(label_space, counts, config.min_labels))
    for split in ("train", "validation"):
        if not any(counts.answers[split].values()):
            raise TrainingError(
                f"There is no labelled clip for {split}: clips of one recording stay together, so label clips of other "
                "recordings too."
            )
    if config.rung != "auto":
        return config.rung
    if min(sizes) < config.stage4_labels:
        return "projection"
    return "stage4" if min(sizes) < config.stages34_labels else "stages34"


def _smallest_class(control: Control, counts: Counts, min_labels: int) -> int:
    """The size of the control's smallest class that has at least `min_labels` clips; 0 if fewer than two have."""
    sizes = list(_label_counts(control, counts).values())
    if control.multiple:
        answers = counts.answers["train"][control.name] + counts.answers["validation"][control.name]
        smaller_sides = [min(size, answers - size) for size in sizes]  # with the label, or without it
        return min((size for size in smaller_sides if size >= min_labels), default=0)
    sufficient = [size for size in sizes if size >= min_labels]
    return min(sufficient) if len(sufficient) > 1 else 0


def _label_counts(control: Control, counts: Counts) -> dict[str, int]:
    train, validation = (counts.labels[split][control.name] for split in ("train", "validation"))
    return {label: number + validation[label] for label, number in train.items()}


def _too_few(label_space: LabelSpace, counts: Counts, min_labels: int) -> str:
    label_counts = [item for control in label_space.predicted for item in _label_counts(control, counts).items()]
    used_labels = sorted((item for item in label_counts if item[1]), key=lambda item: -item[1])
    unusable = f"{counted(counts.unusable, 'answer')} {plural(counts.unusable, 'does', 'do')}n't"
    outdated = f" ({unusable} fit the label config any more)" if counts.unusable else ""
    remedy = f"label at least {min_labels} clips of each of two classes{outdated}."
    if not used_labels:
        return f"There are no labels to train on: {remedy}"
    if len(used_labels) == 1:
        label, number = used_labels[0]
        return f"“{label}” is the only label that clips have ({number}): {remedy}"
    named = ", ".join(f"“{label}” {number}" for label, number in used_labels[:3])
    return f"There are too few labels to train on ({named}{', …' if len(used_labels) > 3 else ''}): {remedy}"
