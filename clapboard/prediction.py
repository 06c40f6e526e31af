"""Embeddings and a head → a Label Studio prediction, and the name of what made it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from clapboard import scoring
from clapboard.head import ZERO_SHOT, Head, scores_of_all
from clapboard.labels import Control, LabelSpace
from clapboard.prompts import NEGATIVES
from clapboard.scoring import Array

DEFAULT_THRESHOLD = 0.5
_WINDOWS_AT_ONCE = 20_000


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


def model_version(encoder: EncoderName, label_space: LabelSpace, head: str = ZERO_SHOT) -> str:
    """The immutable name of encoder + head + label space, such as `mini-3f2a9c1d.zero-shot.b81c22aa`."""
    model = re.sub(r"[^A-Za-z0-9_-]+", "-", encoder.model.rstrip("/").split("/")[-1]).strip("-") or "clap"
    return f"{model}-{encoder.version[:8]}.{head}.{space_id(label_space)}"


def space_id(label_space: LabelSpace) -> str:
    """8 hex digits over all that decides the scores of given logits: the label space and how it is scored."""
    return hashlib.sha256(repr((scoring.RECIPE, NEGATIVES, label_space.fingerprint)).encode()).hexdigest()[:8]


def prompt_groups(label_space: LabelSpace) -> list[tuple[str, ...]]:
    """The prompts of each row of the class weights: every predicted label in order, then the neutral ones."""
    return [*(label.prompts for control in label_space.predicted for label in control.labels), NEGATIVES]


def compute_class_weights(label_space: LabelSpace, embed_texts: Callable[[Sequence[str]], Array]) -> Array:
    """The class weights `[L + 1, D]` of the label space's predicted labels, the neutral prompts' weight last."""
    groups = prompt_groups(label_space)
    rows = iter(embed_texts([text for group in groups for text in group]))
    return np.stack([scoring.mean_direction(np.stack([next(rows) for _ in group])) for group in groups])


def predict(label_space: LabelSpace, embeddings: Array, head: Head, model_version: str) -> Prediction:
    """The prediction for a recording, from its windows' embeddings `[W, D]`."""
    return predict_many(label_space, [embeddings], head, model_version)[0]


def predict_many(
    label_space: LabelSpace, recordings: Sequence[Array], head: Head, model_version: str
) -> list[Prediction]:
    """The prediction for each recording, from its windows' embeddings `[W, D]`: to the bit what it would get alone.

    Several controls are several results; the task's score is the least of theirs, the one to look at.
    """
    found: list[Prediction] = []
    for some in _in_batches(recordings):
        results: list[list[dict[str, Any]]] = [[] for _ in some]
        confidences = []
        for control, rows in zip(label_space.predicted, head.controls, strict=True):
            scores = scores_of_all(control, rows, some)  # [N, L]
            confidences.append(_confidence(control, scores))
            result = {"id": result_id(control.name, model_version), "from_name": control.name}
            result |= {"to_name": label_space.audio_name, "type": control.kind}
            for held, chosen, scored in zip(results, _chosen(control, scores), scores, strict=True):
                if chosen:
                    labels = [control.labels[i].value for i in chosen]
                    score = min(1.0, max(0.0, float(scored[chosen[0]])))
                    held.append(result | {"value": {control.kind: labels}, "score": score})
        least = np.min(confidences, axis=0).tolist() if confidences else [0.0] * len(some)
        found += map(Prediction, results, least)
    return found


def result_id(control: str, model_version: str) -> str:
    """The id of a control's result. Label Studio keeps it when somebody accepts or corrects the result.

    So it tells which version a person had in view, whatever has been promoted since.
    """
    return f"clapboard-{control}-{hashlib.sha256(model_version.encode()).hexdigest()[:8]}"


def _in_batches(recordings: Sequence[Array]) -> Iterator[list[Array]]:
    """The recordings in lists that together have few enough windows to lie in memory a second time."""
    batch: list[Array] = []
    num_windows = 0
    for one in recordings:
        if batch and num_windows + len(one) > _WINDOWS_AT_ONCE:
            yield batch
            batch, num_windows = [], 0
        batch.append(one)
        num_windows += len(one)
    if batch:
        yield batch


def _chosen(control: Control, scores: Array) -> list[list[int]]:
    """For each recording, from `[N, L]`, the indices of the labels to suggest, best first.

    A threshold in the config is obeyed to the letter. Without one, something is always suggested: a click on a wrong
    suggestion costs less than a blank that hides what the model thought.
    """
    orders = np.argsort(-scores, axis=1, kind="stable")
    if not control.multiple:
        orders = orders[:, :1]
    ranked = np.take_along_axis(scores, orders, axis=1)
    if control.threshold is not None:
        num_chosen = (ranked >= control.threshold).sum(axis=1)
    else:
        num_chosen = np.maximum((ranked >= DEFAULT_THRESHOLD).sum(axis=1), 1)
    return [order[:number] for order, number in zip(orders.tolist(), num_chosen.tolist(), strict=True)]


def _confidence(control: Control, scores: Array) -> Array:
    """How sure the model is of all it says about the control, in [0, 1]: `[N]` from `[N, L]`."""
    sure = np.maximum(scores, 1.0 - scores).mean(axis=1) if control.multiple else scores.max(axis=1)
    return np.clip(sure, 0.0, 1.0)
