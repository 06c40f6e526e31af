"""Labels that came since a trial began → what each says of its two versions, before either has learnt it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clapboard.feedback.consensus import TaskLabels
from clapboard.labels.label_space import Control, LabelSpace
from clapboard.project.known_tasks import embedded
from clapboard.project.serving import Serving
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.trials import Answer, Arrival, Trial
from clapboard.store.versions import Version
from clapboard.suggest.choosing import DEFAULT_THRESHOLD
from clapboard.suggest.head import ZERO_SHOT, ControlHead, Head, scores_of_all
from clapboard.suggest.scoring import Array
from training.evaluate import Truth
from training.significance import nearness


@dataclass(frozen=True)
class Contender:
    """One of a trial's two versions: a head on an encoder's embeddings."""

    encoder: Encoder
    head: Head


def collect_answers(
    store: Store,
    trial: Trial,
    label_space: LabelSpace,
    candidate: Contender,
    reference: Contender,
    *,
    counts: Callable[[Arrival], bool] = lambda _arrival: True,
) -> list[Answer]:
    """Store what the tasks say that were labelled since the last look; all answers of the trial, in their order.

    Labels are those of the last refresh. Tasks that aren't embedded for both versions, or were accepted in bulk, don't
    answer; nor do those that `counts` leaves out.
    """
    arrivals = store.trials.arrivals(trial)
    if arrivals:
        counted = {arrival.task: arrival for arrival in arrivals if counts(arrival)}
        labels = store.labels.agreed(trial.project, counted)
        known = list(store.tasks.get(trial.project, list(labels)).values())
        by_candidate = embedded(store, known, candidate.encoder)
        by_reference = embedded(store, known, reference.encoder)
        answers = [
            answer
            for task, arrival in counted.items()
            if task in by_candidate and task in by_reference
            if (
                answer := _answer(
                    arrival,
                    label_space,
                    labels[task],
                    (candidate.head, by_candidate[task]),
                    (reference.head, by_reference[task]),
                )
            )
        ]
        waiting = [
            arrival.received_at
            for task, arrival in counted.items()
            if task in labels and not (task in by_candidate and task in by_reference)
        ]
        looked_at = max(arrival.received_at for arrival in arrivals)
        store.trials.put_answers(trial, answers, min([*waiting, looked_at]))  # those that wait are looked at again
    return store.trials.answers(trial)


def _answer(
    arrival: Arrival,
    label_space: LabelSpace,
    labels: TaskLabels,
    candidate: tuple[Head, Array],
    reference: tuple[Head, Array],
) -> Answer | None:
    """The means over the task's controls; None if none of them has a label that somebody chose by itself."""
    leads, rights = [], []
    for index, control in enumerate(label_space.predicted):
        agreed = labels.get(control.name)
        if agreed is None or agreed.bulk:
            continue
        truth = np.array([[label.value in agreed.labels for label in control.labels]])  # [1, L]
        (near, right), (other_near, other_right) = (
            _quality(control, head.controls[index], windows, truth) for head, windows in (candidate, reference)
        )
        leads.append(near - other_near)
        rights.append(right - other_right)
    if not leads:
        return None
    return Answer(arrival.task, arrival.model_version, float(np.mean(leads)), float(np.mean(rights)))


def _quality(control: Control, head: ControlHead, windows: Array, truth: Truth) -> tuple[float, float]:
    """How near the scores come to the labels, and the share of labels that the scores have right."""
    scores = scores_of_all(control, head, [windows])  # [1, L]
    if control.multiple:
        right = float(((scores >= DEFAULT_THRESHOLD) == truth).mean())
    else:
        right = float(truth[0, scores[0].argmax()])
    return float(nearness(scores, truth, multiple=control.multiple)[0]), right


def version_of(project: int, serving: Serving) -> Version:
    """What serves, as a version that can be promoted again."""
    encoder, head = serving.encoder, serving.head
    manifest = {"kind": ZERO_SHOT} if head == ZERO_SHOT else {}
    return Version(
        project, serving.model_version, encoder.model, encoder.version, head, serving.space_id, manifest=manifest
    )
