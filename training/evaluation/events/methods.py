"""The ways of finding events that are compared: what is served, and simpler ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clapboard.labels.label_space import Control, LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.model.recording_frames import RecordingFrames
from clapboard.suggest.events.event import Event, EventRules, LabelRules
from clapboard.suggest.events.finding import find_events
from clapboard.suggest.events.probabilities import frame_probabilities, text_frame_head
from clapboard.suggest.head import ControlHead, FrameHead
from clapboard.suggest.prediction import compute_class_weights
from clapboard.suggest.regions import events_of, zero_shot_frames
from clapboard.suggest.scoring import Array
from training.evaluation.events.recordings import EmbeddedRecording
from training.fit_frame_head import (
    LabelledSpan,
    drawn_frames,
    fit_frame_head,
    frame_targets,
    learnt_limits,
)

WINDOWS, HYSTERESIS, SERVED = "windows", "hysteresis", "served"
_TOUCH_S = 1.0  # a window that has so much of an event is one of its label

METHODS = (WINDOWS, HYSTERESIS, SERVED)


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """The label space and the heads that its texts make: of frames, and of whole windows."""

    label_space: LabelSpace
    of_frames: FrameHead
    of_windows: ControlHead

    @property
    def control(self) -> Control:
        """The only control."""
        return self.label_space.marking[0]


@dataclass(frozen=True, eq=False)
class Found:
    """A recording's events by one method, and the scores `[F, L]` of each moment, by frames of `frame_s`."""

    events: list[Event]
    scores: Array
    frame_s: float
    whole_events: bool = False  # whether a threshold takes or leaves an event as a whole


def zero_shot_heads(encoder: ClapEncoder, label_space: LabelSpace) -> ZeroShot:
    """The heads of the label space's texts."""
    weights = compute_class_weights(label_space, encoder.embed_texts)
    (of_frames,) = zero_shot_frames(label_space, weights, encoder.logit_scale, encoder.frame_scores)
    return ZeroShot(label_space, of_frames, text_frame_head(weights, encoder.logit_scale))


def find_by_method(
    method: str, zero_shot: ZeroShot, reviewed: Sequence[EmbeddedRecording], recordings: Sequence[EmbeddedRecording]
) -> list[Found]:
    """What the method finds in each of the recordings, after learning from the regions of the reviewed ones."""
    control = zero_shot.control
    if method == SERVED:
        head = fitted_head(zero_shot.of_frames.control, [item.frames for item in reviewed], reviewed, control)
        return [_served(control, head, item.frames) for item in recordings]
    of_windows = method == WINDOWS
    views = [_as_windows(item.frames) if of_windows else item.frames for item in recordings]
    text_head = zero_shot.of_windows if of_windows else zero_shot.of_frames.control
    learnt_from = [_as_windows(item.frames) if of_windows else item.frames for item in reviewed]
    touch_s = _TOUCH_S if of_windows else 0.0
    head = fitted_head(text_head, learnt_from, reviewed, control, touch_s=touch_s)
    rules = EventRules((LabelRules(gap_s=0.1 if of_windows else LabelRules.gap_s),) * len(control.labels))
    return [_simple(control, head.control, view, rules) for view in views]


def fitted_head(
    text_head: ControlHead,
    frames: Sequence[RecordingFrames],
    reviewed: Sequence[EmbeddedRecording],
    control: Control,
    *,
    touch_s: float = 0.0,
) -> FrameHead:
    """The head fitted to the reviewed recordings' regions, as a project's is; without any, the texts' own.

    With `touch_s`, a frame counts as wholly inside a region that lies in it for so long.
    """
    num_labels = len(control.labels)
    spans = [
        [_span(event, item.frame_s, touch_s) for event in own.listed.events]
        for own, item in zip(reviewed, frames, strict=True)
    ]
    limits = learnt_limits([span for own in spans for span in own], num_labels)
    if not any(spans):
        return FrameHead(text_head, limits)
    marks = [
        frame_targets(own, len(item.frames), item.frame_s, num_labels) for own, item in zip(spans, frames, strict=True)
    ]
    vectors = np.concatenate([item.frames for item in frames])
    targets, weights = (np.concatenate(parts) for parts in zip(*marks, strict=True))
    rows, row_weights = drawn_frames(targets, weights)
    return FrameHead(fit_frame_head(text_head, vectors[rows], targets[rows], row_weights, vectors), limits)


def _span(event: Event, frame_s: float, touch_s: float) -> LabelledSpan:
    if not touch_s:
        return LabelledSpan(event.label, event.start_s, event.end_s)
    first, last = math.floor((event.start_s + touch_s) / frame_s), math.ceil((event.end_s - touch_s) / frame_s)
    middle = math.floor((event.start_s + event.end_s) / 2 / frame_s)
    return LabelledSpan(event.label, min(first, middle) * frame_s, max(last, middle + 1) * frame_s)


def _served(control: Control, head: FrameHead, frames: RecordingFrames) -> Found:
    events, probabilities = events_of(control, head, frames)
    return Found(events, probabilities, frames.frame_s, whole_events=True)


def _simple(control: Control, head: ControlHead, frames: RecordingFrames, rules: EventRules) -> Found:
    scores = frame_probabilities(frames.frames, head, len(control.labels))
    events = find_events(scores, frames.frame_s, frames.duration_s, rules, method="hysteresis")
    return Found(events, scores, frames.frame_s)


def _as_windows(frames: RecordingFrames) -> RecordingFrames:
    """The recording's windows as if each were a frame, one after another."""
    length_s = float(np.ptp(frames.window_s[0]))
    starts = frames.window_s[:, 0]
    middles = (np.arange(max(1, int(np.ceil(frames.duration_s / length_s - 1e-6)))) + 0.5) * length_s
    nearest = np.abs(middles[:, None] - length_s / 2 - starts[None]).argmin(axis=1)
    return replace(frames, frames=frames.window_embeddings[nearest], frame_s=length_s)
