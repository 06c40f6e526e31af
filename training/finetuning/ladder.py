"""Which part of the model there are labels enough for, or why there are not."""

from __future__ import annotations

from clapboard.errors import TrainingError
from clapboard.labels import Control, LabelSpace
from training.finetuning.labelled import Counts
from training.finetuning.stages import Rung
from training.finetuning.trainer import FinetuneConfig


def choose_rung(label_space: LabelSpace, counts: Counts, config: FinetuneConfig) -> Rung:
    """The config's rung; for `auto` the highest that there are labels enough for, over training and validation.

    The least class decides, of those with `min_labels` clips or more; where labels don't exclude each other, having a
    label and not having it are two classes. Raises `TrainingError` if there are no two such classes, or if nothing is
    there to learn from or to validate on.
    """
    enough = [least for control in label_space.predicted if (least := _least_class(control, counts, config.min_labels))]
    if not enough:
        raise TrainingError(_too_few(label_space, counts, config.min_labels))
    for split in ("train", "validation"):
        if not any(counts.answers[split].values()):
            raise TrainingError(
                f"No labelled clip is there for {split}: clips of one recording stay together, so label some of other "
                "recordings."
            )
    if config.rung != "auto":
        return config.rung
    if min(enough) < config.stage4_labels:
        return "projection"
    return "stage4" if min(enough) < config.stages34_labels else "stages34"


def _least_class(control: Control, counts: Counts, min_labels: int) -> int:
    """The size of the least of the control's classes that have enough clips; 0 if there are no two of them."""
    sizes = list(_label_counts(control, counts).values())
    if control.multiple:
        answers = counts.answers["train"][control.name] + counts.answers["validation"][control.name]
        return min((least for size in sizes if (least := min(size, answers - size)) >= min_labels), default=0)
    enough = [size for size in sizes if size >= min_labels]
    return min(enough) if len(enough) > 1 else 0


def _label_counts(control: Control, counts: Counts) -> dict[str, int]:
    train, validation = (counts.labels[split][control.name] for split in ("train", "validation"))
    return {label: number + validation[label] for label, number in train.items()}


def _too_few(label_space: LabelSpace, counts: Counts, min_labels: int) -> str:
    found = [item for control in label_space.predicted for item in _label_counts(control, counts).items()]
    there = sorted((item for item in found if item[1]), key=lambda item: -item[1])
    outdated = f" ({counts.unusable} answers don't fit the label config any more)" if counts.unusable else ""
    remedy = f"label at least {min_labels} clips of each of two classes{outdated}."
    if not there:
        return f"There are no labels to train on: {remedy}"
    if len(there) == 1:
        return f"“{there[0][0]}” is the only label that clips have ({there[0][1]}): {remedy}"
    named = ", ".join(f"“{label}” {number}" for label, number in there[:3])
    return f"There are too few labels to train on ({named}{', …' if len(there) > 3 else ''}): {remedy}"
