"""Reports of how well scores predict labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from clapboard.suggest.choosing import DEFAULT_THRESHOLD
from clapboard.suggest.scoring import Array

Truth = npt.NDArray[np.bool_]
"""The true labels as a mask `[N, L]`: exactly one in a row where labels exclude each other."""

_CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Report:
    """The results of one control on N clips; a label's entries stand at its place in `labels`.

    Where labels exclude each other (`multiple` false), the label with the highest score is predicted: `confusion[i][j]`
    counts clips of label i that are predicted as label j. Otherwise every label whose score is at least 0.5 is
    predicted, a clip is correct if all its labels are, and `confusion[i]` is label i's `((TN, FP), (FN, TP))`.
    """

    labels: tuple[str, ...]
    multiple: bool
    num_clips: int
    support: tuple[int, ...]  # clips that have the label
    accuracy: float
    macro_f1: float  # over the labels that any clip has or is predicted to have
    mean_average_precision: float | None  # over the labels that any clip has; for `multiple` alone
    recall: tuple[float, ...]  # 0 where no clip has the label
    precision: tuple[float, ...]  # 0 where no clip is predicted to have the label
    confusion: tuple[Any, ...]
    calibration_error: float

    def __str__(self) -> str:
        recalls = ", ".join(f"{label} {value:.2f}" for label, value in self.recall_by_label.items())
        precision = "" if self.mean_average_precision is None else f", mAP {self.mean_average_precision:.3f}"
        return f"accuracy {self.accuracy:.3f}, macro F1 {self.macro_f1:.3f}{precision}; recall: {recalls}"

    @property
    def recall_by_label(self) -> Mapping[str, float]:
        """The recall of each label, by name."""
        return dict(zip(self.labels, self.recall, strict=True))

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        values: dict[str, Any] = TypeAdapter(Report).dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The report that `to_json` returned. Raises `pydantic.ValidationError` for other values."""
        fields = dict(values) | {"confusion": _tuples(values["confusion"])}
        return TypeAdapter(cls).validate_python(fields)


def report(scores: Array, truth: Truth, labels: Sequence[str], *, multiple: bool) -> Report:
    """Returns the report on N clips with scores `[N, L]` in [0, 1].

    Raises `ValueError` if there are no clips, or if the shapes differ.
    """
    if not len(scores) or scores.shape != truth.shape or scores.shape[1] != len(labels):
        raise ValueError(f"scores {scores.shape} and truth {truth.shape} must be [N, {len(labels)}], N ≥ 1")
    predicted = (
        scores >= DEFAULT_THRESHOLD if multiple else np.eye(len(labels), dtype=bool)[scores.argmax(axis=1)]
    )  # [N, L]
    support, num_predicted = truth.sum(axis=0), predicted.sum(axis=0)
    hits = (truth & predicted).sum(axis=0)
    f1 = _ratio(2 * hits, support + num_predicted)
    occurs = support + num_predicted > 0
    misses, false_alarms = support - hits, num_predicted - hits
    if multiple:
        confusion = np.stack([len(truth) - hits - misses - false_alarms, false_alarms, misses, hits], 1).reshape(
            -1, 2, 2
        )
    else:
        confusion = truth.T.astype(int) @ predicted.astype(int)
    return Report(
        labels=tuple(labels),
        multiple=multiple,
        num_clips=len(scores),
        support=tuple(support.tolist()),
        accuracy=float((truth == predicted).all(axis=1).mean()),
        macro_f1=float(f1[occurs].mean()) if occurs.any() else 1.0,  # no label to predict, and none predicted
        mean_average_precision=mean_average_precision(scores, truth) if multiple else None,
        recall=tuple(_ratio(hits, support).tolist()),
        precision=tuple(_ratio(hits, num_predicted).tolist()),
        confusion=_tuples(confusion.tolist()),
        calibration_error=calibration_error(scores, truth, multiple=multiple),
    )


def mean_average_precision(scores: Array, truth: Truth) -> float | None:
    """The mean average precision over the labels that any clip has; None if no clip has a label."""
    from sklearn.metrics import average_precision_score  # 0.5 s to import, and serving workers don't need it

    present = truth.any(axis=0)
    if not present.any():
        return None
    pairs = zip(truth[:, present].T, scores[:, present].T, strict=True)
    return float(np.mean([average_precision_score(*pair) for pair in pairs]))


def calibration_error(scores: Array, truth: Truth, *, multiple: bool) -> float:
    """The expected calibration error over 15 equal bins of confidence (Guo et al. 2017, eq. 3).

    The confidence is the score of the predicted label; where labels don't exclude each other, every score counts.
    """
    if multiple:
        confidence, right = scores.ravel(), truth.ravel()
    else:
        predicted = scores.argmax(axis=1)
        confidence, right = scores.max(axis=1), truth[np.arange(len(truth)), predicted]
    bins = np.clip(np.ceil(confidence.astype(np.float64) * _CALIBRATION_BINS).astype(int) - 1, 0, None)
    sizes = np.bincount(bins, minlength=_CALIBRATION_BINS)
    gaps = np.bincount(bins, confidence.astype(np.float64) - right, minlength=len(sizes))
    return float(np.abs(gaps).sum() / sizes.sum())


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """part / whole, and 0 where the whole is 0."""
    return part / np.maximum(whole, 1)


def _tuples(values: Any) -> Any:
    return tuple(map(_tuples, values)) if isinstance(values, list | tuple) else values
