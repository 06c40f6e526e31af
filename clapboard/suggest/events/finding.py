"""Probabilities per frame and label → events."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from clapboard.audio.levels import LEVEL_S
from clapboard.suggest.events.decoding import decoded_spans
from clapboard.suggest.events.event import Event, EventRules, LabelRules
from clapboard.suggest.events.hysteresis import hysteresis_spans
from clapboard.suggest.events.level_jumps import LevelJumps
from clapboard.suggest.scoring import Array

Spans = list[tuple[float, float]]

Method = Literal["decoding", "hysteresis"]
"""How the extents are found; the first is the better one by measurement (docs/measured.md)."""


def find_events(
    probabilities: Array,
    frame_s: float,
    duration_s: float,
    rules: EventRules,
    window_probabilities: Array | None = None,
    levels: Array | None = None,
    method: Method = "decoding",
) -> list[Event]:
    """The events of a recording, by start: none overlaps another of its label, and the best `max_events` are kept.

    `probabilities` `[F, L]` are those of each label in each frame; frame i covers [i, i + 1) · `frame_s` of the
    `duration_s` seconds. `window_probabilities` `[F, L]` are those of the window around each frame, where known: a
    label that its window doesn't have isn't looked for in its frames. With `levels` (see `audio.levels`), events begin
    and end at jumps in them.
    """
    if not len(probabilities) or duration_s <= 0:
        return []
    jumps = None if levels is None or not len(levels) else LevelJumps(levels, LEVEL_S)
    if method == "decoding":
        spans_of_labels = decoded_spans(probabilities, frame_s, duration_s, jumps)
    else:
        spans_of_labels = [
            _moved(merged(hysteresis_spans(scores, frame_s, duration_s, of.threshold), of.gap_s), jumps)
            for scores, of in zip(probabilities.T, rules.labels, strict=True)
        ]
    events: list[Event] = []
    for label, (spans, label_rules) in enumerate(zip(spans_of_labels, rules.labels, strict=True)):
        gate = None if window_probabilities is None else window_probabilities[:, label]
        events += _label_events(spans, label, probabilities[:, label], gate, frame_s, duration_s, label_rules)
    best = sorted(events, key=lambda event: -event.score)[: rules.max_events]
    return sorted(best, key=lambda event: (event.start_s, event.label))


def _moved(spans: Spans, jumps: LevelJumps | None) -> Spans:
    return spans if jumps is None else sorted(jumps.moved(*span) for span in spans)


def _label_events(
    spans: Spans, label: int, scores: Array, gate: Array | None, frame_s: float, duration_s: float, rules: LabelRules
) -> Iterator[Event]:
    for start_s, last_s in merged(spans, rules.gap_s):
        end_s = min(last_s, duration_s)
        first = min(int(start_s / frame_s), len(scores) - 1)
        last = max(first + 1, math.ceil(end_s / frame_s))
        score = _score(scores[first:last])
        if gate is not None:
            score = min(score, float(gate[first:last].max()))
        if end_s <= start_s or end_s - start_s < rules.min_s or score < rules.threshold:
            continue
        for piece_start_s, piece_end_s in pieces(start_s, end_s, rules.max_s):
            yield Event(piece_start_s, piece_end_s, label, min(1.0, score))


def _score(scores: Array) -> float:
    """The mean of the better half of an event's frames: how sure it is doesn't depend on pauses within it."""
    best = np.sort(scores)[-max(1, len(scores) // 2) :]
    return float(best.mean())


def merged(spans: Spans, gap_s: float) -> Spans:
    """The spans in order, those nearer to each other than `gap_s` as one."""
    joined: Spans = []
    for start_s, end_s in spans:
        if joined and start_s - joined[-1][1] < gap_s:
            joined[-1] = (joined[-1][0], max(end_s, joined[-1][1]))
        else:
            joined.append((start_s, end_s))
    return joined


def pieces(start_s: float, end_s: float, max_s: float) -> Spans:
    """The span in the fewest pieces of equal length that are no longer than `max_s`."""
    count = max(1, math.ceil((end_s - start_s) / max_s)) if max_s > 0 else 1
    edges = np.linspace(start_s, end_s, count + 1).tolist()
    return list(itertools.pairwise(edges))
