"""A recording's frames and a head → results of the controls about regions, as Label Studio's editor stores its own.

    {"id", "from_name", "to_name", "type": "labels", "original_length", "value": {"start", "end", "channel", "labels"}}

with a score beside them. What a perRegion control says about a region has the region's id, start, end and channel.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from clapboard.suggest.choosing import chosen_labels
from clapboard.suggest.events.event import Event, EventRules, LabelRules
from clapboard.suggest.events.finding import find_events
from clapboard.suggest.events.probabilities import FrameScores, frame_probabilities, text_frame_head
from clapboard.suggest.head import FrameHead, Head, control_scores
from clapboard.suggest.scoring import Array, mean_direction

if TYPE_CHECKING:
    from clapboard.labels.label_space import Control, LabelSpace

RECIPE = "1"
"""Part of the model version of label spaces with regions; raised by one when the same frames give other regions."""

_PLACES = 3  # decimals of a second


class Frames(Protocol):
    """A recording's frames, see `model.recording_frames.RecordingFrames`."""

    @property
    def frames(self) -> Array:
        """`[F, D]`, unit-norm."""

    @property
    def frame_s(self) -> float:
        """How long a frame is."""

    @property
    def duration_s(self) -> float:
        """How long the recording is."""


@dataclass(frozen=True)
class RegionResults:
    """A recording's results of one Labels, and of the perRegion controls about its regions."""

    results: list[dict[str, Any]]
    confidence: float  # in [0, 1]: that of the region to look at, suggested or nearly suggested


def zero_shot_frames(
    label_space: LabelSpace, class_weights: Array, logit_scale: float, frame_scores: FrameScores | None
) -> tuple[FrameHead, ...]:
    """The heads of the controls on frames, made of the labels' texts.

    `class_weights` `[L + 1, D]` are those of `prediction.compute_class_weights`: of whole-clip labels first, then of
    those on frames; the last row is that of the neutral texts.
    """
    start = sum(len(control.labels) for control in label_space.predicted)
    heads = []
    for control in label_space.on_frames:
        rows = class_weights[start : start + len(control.labels)]
        start += len(control.labels)
        if control.is_labels:
            head = text_frame_head(np.vstack([rows, class_weights[-1:]]), logit_scale, frame_scores)
        else:
            of_choice = rows - class_weights[-1] if control.multiple else rows
            head = text_frame_head(np.vstack([of_choice, class_weights[-1:]]), logit_scale)
            head = replace(head, weights=head.weights[:-1], bias=head.bias[:-1])
        heads.append(FrameHead(head, np.full((len(rows), 3), np.nan, np.float32)))
    return tuple(heads)


def region_results(label_space: LabelSpace, head: Head, frames: Frames) -> dict[str, RegionResults]:
    """By the name of each Labels, the recording's regions; those of `perRegion` Choices stand behind their region."""
    heads = dict(zip((control.name for control in label_space.on_frames), head.frame_controls, strict=True))
    about = [(control, heads[control.name]) for control in label_space.on_frames if control.per_region]
    regions = {}
    for control in label_space.marking:
        events, probabilities = events_of(control, heads[control.name], frames)
        results = [result for event in events for result in _results(label_space, control, event, frames, about)]
        regions[control.name] = RegionResults(results, _confidence(control, events, probabilities))
    return regions


def events_of(control: Control, head: FrameHead, frames: Frames) -> tuple[list[Event], Array]:
    """The events of a Labels' labels in a recording, by start, and the probabilities `[F, L]` that they come from."""
    probabilities = frame_probabilities(frames.frames, head.control, len(control.labels))
    levels = getattr(frames, "levels", None)
    rules = event_rules(control, head.limits)
    return find_events(probabilities, frames.frame_s, frames.duration_s, rules, levels=levels), probabilities


def event_rules(control: Control, learnt: Array) -> EventRules:
    """The rules of the control's labels: the label config's, else what accepted regions taught, else the defaults."""
    rules = []
    for label, row in zip(control.labels, learnt.tolist(), strict=True):
        names = ("min_s", "max_s", "gap_s")
        values = {name: value for name, value in zip(names, row, strict=True) if math.isfinite(value)}
        stated = {name: getattr(label.limits, name) for name in ("threshold", *names)}
        rules.append(LabelRules(**values | {name: value for name, value in stated.items() if value is not None}))
    return EventRules.of(rules)


def region_id(control: str, label: str, start_s: float, end_s: float) -> str:
    """The id of a region's result: the same as long as the same region is suggested, whatever version does."""
    name = f"{label} {start_s:.{_PLACES}f} {end_s:.{_PLACES}f}"
    return f"clapboard-{control}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def channel_index(channel: str) -> int:
    """A label space's channel as regions name it: from 0; that of the mean of all channels is 0, as in the editor."""
    return int(channel) - 1 if channel.isdecimal() else int(channel == "right")


def _results(
    label_space: LabelSpace, control: Control, event: Event, frames: Frames, about: Sequence[tuple[Control, FrameHead]]
) -> Iterator[dict[str, Any]]:
    label = control.labels[event.label].value
    start_s, end_s = round(event.start_s, _PLACES), round(event.end_s, _PLACES)
    extent = {"start": start_s, "end": end_s, "channel": channel_index(label_space.channel)}
    shared: dict[str, Any] = {"id": region_id(control.name, label, start_s, end_s), "to_name": label_space.audio_name}
    shared["original_length"] = frames.duration_s
    score = min(1.0, max(0.0, float(event.score)))
    yield shared | {"from_name": control.name, "type": "labels", "value": extent | {"labels": [label]}, "score": score}
    for choices, head in about:
        if choices.is_about(control, label):
            chosen, confidence = _chosen(choices, head, _mean_frame(frames, event))
            if chosen:
                value = extent | {choices.kind: chosen}
                yield shared | {"from_name": choices.name, "type": choices.kind, "value": value, "score": confidence}


def _mean_frame(frames: Frames, event: Event) -> Array:
    """The unit-norm mean `[1, D]` of the frames in which the event lies."""
    first = min(int(event.start_s / frames.frame_s), len(frames.frames) - 1)
    last = max(first + 1, math.ceil(event.end_s / frames.frame_s))
    return mean_direction(frames.frames[first:last])[None]


def _chosen(control: Control, head: FrameHead, mean_frame: Array) -> tuple[list[str], float]:
    """The choices to suggest for a region, best first, and the best one's score.

    As for whole clips, something is always suggested unless the label config has a threshold.
    """
    scores = control_scores(control, head.control, mean_frame)  # [L]
    chosen = chosen_labels(control, scores[None])[0]
    best = max((float(scores[index]) for index in chosen), default=0.0)
    return [control.labels[index].value for index in chosen], min(1.0, max(0.0, best))


def _confidence(control: Control, events: Sequence[Event], probabilities: Array) -> float:
    """How sure the least certain label is: of the weakest of its regions, or that it sounds nowhere."""
    scores = [event.score for event in events]
    silent = set(range(len(control.labels))) - {event.label for event in events}
    scores += [1.0 - float(probabilities[:, label].max()) for label in silent]
    return min(1.0, max(0.0, min(scores, default=0.0)))
