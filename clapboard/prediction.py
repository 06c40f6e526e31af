"""Embeddings and class weights → a Label Studio prediction, and the name of what made it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from clapboard import scoring
from clapboard.labels import Control, Label, LabelSpace
from clapboard.prompts import NEGATIVES
from clapboard.scoring import Array

DEFAULT_THRESHOLD = 0.5


class EncoderName(Protocol):
    """What a model version needs to know of an encoder."""

    @property
    def model(self) -> str:
        """As the operator wrote it."""

    @property
    def version(self) -> str:
        """Hex digits over all that decides an embedding."""


@dataclass(frozen=True)
class Prediction:
    """What one task is told: Label Studio's list of results, and the task's own score, which orders sampling."""

    result: list[dict[str, Any]]
    score: float


def model_version(encoder: EncoderName, label_space: LabelSpace) -> str:
    """The immutable name of encoder + head + label space, such as `mini-3f2a9c1d.zero-shot.b81c22aa`."""
    model = re.sub(r"[^A-Za-z0-9_-]+", "-", encoder.model.rstrip("/").split("/")[-1]).strip("-") or "clap"
    return f"{model}-{encoder.version[:8]}.zero-shot.{head_id(label_space)}"


def head_id(label_space: LabelSpace) -> str:
    """8 hex digits over all that decides the scores of given embeddings: the label space and how it is scored."""
    return hashlib.sha256(repr((scoring.RECIPE, NEGATIVES, label_space.fingerprint)).encode()).hexdigest()[:8]


def prompt_groups(label_space: LabelSpace) -> list[tuple[str, ...]]:
    """The prompts of each row of the class weights: every predicted label in order, then the neutral ones."""
    return [*(label.prompts for control in label_space.predicted for label in control.labels), NEGATIVES]


def compute_class_weights(label_space: LabelSpace, embed_texts: Callable[[Sequence[str]], Array]) -> Array:
    """The class weights `[L + 1, D]` of the label space's predicted labels, the neutral prompts' weight last."""
    groups = prompt_groups(label_space)
    rows = iter(embed_texts([text for group in groups for text in group]))
    return np.stack([scoring.class_weight(np.stack([next(rows) for _ in group])) for group in groups])


def predict(label_space: LabelSpace, embeddings: Array, class_weights: Array, logit_scale: float) -> Prediction:
    """The prediction for a recording, from its windows' embeddings `[W, D]` and the class weights `[L + 1, D]`.

    Several controls are several results; the task's score is the least of theirs, the one to look at.
    """
    results = []
    confidences = []
    for control, weights in _rows(label_space, class_weights):
        scores = control_scores(control, embeddings, weights, class_weights[-1], logit_scale)
        chosen = _chosen(control, scores)
        confidences.append(_confidence(control, scores))
        if chosen:
            results.append(_result(label_space, control, [control.labels[i] for i in chosen], float(scores[chosen[0]])))
    return Prediction(results, min(confidences, default=0.0))


def control_scores(control: Control, embeddings: Array, weights: Array, negative: Array, logit_scale: float) -> Array:
    """Scores `[L]` of the control's labels for a recording."""
    if control.multiple:
        return scoring.independent_scores(embeddings, weights, negative, logit_scale)
    return scoring.exclusive_scores(embeddings, weights, logit_scale)


def _rows(label_space: LabelSpace, class_weights: Array) -> Iterator[tuple[Control, Array]]:
    start = 0
    for control in label_space.predicted:
        stop = start + len(control.labels)
        yield control, class_weights[start:stop]
        start = stop


def _chosen(control: Control, scores: Array) -> list[int]:
    """Indices of the labels to suggest, best first.

    A threshold in the config is obeyed to the letter. Without one, something is always suggested: a click on a wrong
    suggestion costs less than a blank that hides what the model thought.
    """
    order = [int(i) for i in np.argsort(-scores, kind="stable")]
    best = order[:1] if not control.multiple else order
    if control.threshold is not None:
        return [i for i in best if scores[i] >= control.threshold]
    return [i for i in best if scores[i] >= DEFAULT_THRESHOLD] or order[:1]


def _confidence(control: Control, scores: Array) -> float:
    """How sure the model is of all it says about the control, in [0, 1]."""
    sure = float(np.maximum(scores, 1.0 - scores).mean()) if control.multiple else float(scores.max())
    return min(1.0, max(0.0, sure))


def _result(label_space: LabelSpace, control: Control, labels: list[Label], score: float) -> dict[str, Any]:
    return {
        "id": f"clapboard-{control.name}",
        "from_name": control.name,
        "to_name": label_space.audio_name,
        "type": control.kind,
        "value": {control.kind: [label.value for label in labels]},
        "score": min(1.0, max(0.0, score)),
    }
