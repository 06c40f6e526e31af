"""Embeddings and a head → a Label Studio prediction, and the version that names what made it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from clapboard.labels.prompts import NEGATIVES
from clapboard.suggest import regions, scoring
from clapboard.suggest.choosing import chosen_labels
from clapboard.suggest.head import ZERO_SHOT, Head, scores_of_all
from clapboard.suggest.regions import Frames, RegionResults, region_results
from clapboard.suggest.scoring import Array

if TYPE_CHECKING:
    from clapboard.labels.label_space import Control, LabelSpace

_WINDOWS_AT_ONCE = 20_000


class EncoderName(Protocol):
    """What a model version needs to know about an encoder."""

    @property
    def model(self) -> str:
        """As the operator wrote it."""

    @property
    def version(self) -> str:
        """Hex digits over everything that decides an embedding."""


@dataclass(frozen=True)
class Prediction:
    """A task's prediction: Label Studio's list of results, and the task's own score, by which sampling is ordered."""

    result: list[dict[str, Any]]
    score: float


def model_version(encoder: EncoderName, label_space: LabelSpace, head: str = ZERO_SHOT) -> str:
    """The immutable name of encoder + head + label space, such as `mini-3f2a9c1d.zero-shot.b81c22aa`."""
    model = re.sub(r"[^A-Za-z0-9_-]+", "-", encoder.model.rstrip("/").split("/")[-1]).strip("-") or "clap"
    return f"{model}-{encoder.version[:8]}.{head}.{space_id(label_space)}"


@lru_cache(maxsize=1024)
def shown_name(model_version: str) -> str:
    """The name that the version has in Label Studio, such as `mini-3f2a9c1d.b81c22aa`: without its head.

    All heads of one encoder and label space share it, zero-shot too, so that a suggestion that a new head doesn't
    change stays as it is there. `result_id` tells which version made it. Other names are returned as they are.
    """
    encoder, head, space = ("", "", *model_version.rsplit(".", 2))[-3:]  # an encoder's name may have dots
    is_ours = bool(encoder) and (head == ZERO_SHOT or head.startswith("head-"))
    return f"{encoder}.{space}" if is_ours else model_version


def space_id(label_space: LabelSpace) -> str:
    """8 hex digits over everything that turns logits into predictions: the label space and how it is scored."""
    recipe = (scoring.RECIPE, NEGATIVES, label_space.fingerprint, *([regions.RECIPE] if label_space.on_frames else []))
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]


def prompt_groups(label_space: LabelSpace) -> list[tuple[str, ...]]:
    """The prompts of each row of the class weights: of every predicted label, of those on frames, then the neutral."""
    controls = (*label_space.predicted, *label_space.on_frames)
    return [*(label.prompts for control in controls for label in control.labels), NEGATIVES]


def compute_class_weights(label_space: LabelSpace, embed_texts: Callable[[Sequence[str]], Array]) -> Array:
    """The class weights `[L + 1, D]` of the predicted labels; the last row is that of the neutral prompts."""
    groups = prompt_groups(label_space)
    rows = iter(embed_texts([text for group in groups for text in group]))
    return np.stack([scoring.mean_direction(np.stack([next(rows) for _ in group])) for group in groups])


def predict(
    label_space: LabelSpace, embeddings: Array, head: Head, model_version: str, frames: Frames | None = None
) -> Prediction:
    """The prediction for one recording, from its windows' embeddings `[W, D]`, and from its frames if it has any."""
    return predict_many(label_space, [embeddings], head, model_version, [frames])[0]


def predict_many(
    label_space: LabelSpace,
    recordings: Sequence[Array],
    head: Head,
    model_version: str,
    frames: Sequence[Frames | None] = (),
) -> list[Prediction]:
    """The prediction for each recording, from its windows' embeddings `[W, D]`; it doesn't depend on the others.

    Each whole-clip control gives a result; from `frames`, those about regions give one for each region. The task's
    score is the lowest confidence, that of the result to look at.
    """
    predictions: list[Prediction] = []
    of_regions = iter([region_results(label_space, head, each) if each is not None else {} for each in frames])
    for batch in _in_batches(recordings):
        results: list[dict[str, dict[str, Any]]] = [{} for _ in batch]  # of each recording, by control
        confidences = {}
        for control, control_head in zip(label_space.predicted, head.controls, strict=True):
            scores = scores_of_all(control, control_head, batch)  # [N, L]
            confidences[control.name] = _confidence(control, scores)
            result = {"id": result_id(control.name, model_version), "from_name": control.name}
            result |= {"to_name": label_space.audio_name, "type": control.kind}
            chosen_of_all = chosen_labels(control, scores)
            for by_control, chosen, label_scores in zip(results, chosen_of_all, scores, strict=True):
                if chosen:
                    labels = [control.labels[i].value for i in chosen]
                    score = min(1.0, max(0.0, float(label_scores[chosen[0]])))
                    by_control[control.name] = result | {"value": {control.kind: labels}, "score": score}
        marked = [next(of_regions, {}) for _ in batch]
        predictions += _visible_predictions(label_space, results, confidences, marked)
    return predictions


def _visible_predictions(
    label_space: LabelSpace,
    results: Sequence[dict[str, dict[str, Any]]],
    confidences: Mapping[str, Array],
    marked: Sequence[Mapping[str, RegionResults]],
) -> Iterator[Prediction]:
    """The predictions with these results by control, and these confidences `[N]`, without controls that are hidden.

    A control whose `visibleWhen` doesn't hold for what is suggested gets no result, and doesn't count in the score.
    """
    always = label_space.visibility.is_always
    hidden: set[str] = set()
    for number, by_control in enumerate(results):
        if not always:
            suggested = {name: result["value"][result["type"]] for name, result in by_control.items()}
            hidden = label_space.visibility.hidden(suggested)
        visible = [float(values[number]) for name, values in confidences.items() if name not in hidden]
        of_regions = [given for name, given in marked[number].items() if name not in hidden]
        shown = [result for name, result in by_control.items() if name not in hidden]
        shown += [result for given in of_regions for result in given.results]
        yield Prediction(shown, min([*visible, *(given.confidence for given in of_regions)], default=0.0))


def result_id(control: str, model_version: str) -> str:
    """The id of a control's result, which Label Studio keeps when somebody accepts or corrects the result.

    So it tells which version a person was shown, whatever has been promoted since.
    """
    return f"clapboard-{control}-{hashlib.sha256(model_version.encode()).hexdigest()[:8]}"


def _in_batches(recordings: Sequence[Array]) -> Iterator[list[Array]]:
    """The recordings in lists, each with few enough windows to be copied in memory."""
    batch: list[Array] = []
    num_windows = 0
    for recording in recordings:
        if batch and num_windows + len(recording) > _WINDOWS_AT_ONCE:
            yield batch
            batch, num_windows = [], 0
        batch.append(recording)
        num_windows += len(recording)
    if batch:
        yield batch


def _confidence(control: Control, scores: Array) -> Array:
    """The confidence `[N]` in [0, 1] of all suggestions for the control, by scores `[N, L]`."""
    sure = np.maximum(scores, 1.0 - scores).mean(axis=1) if control.multiple else scores.max(axis=1)
    return np.clip(sure, 0.0, 1.0)
