"""Probabilities per frame and label → events."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from clapboard.audio.levels import LEVEL_S
from clapboard.suggest.events.edges import LevelEdges
from clapboard.suggest.events.event import Event, EventRules, LabelRules
from clapboard.suggest.events.hysteresis import hysteresis_spans
from clapboard.suggest.scoring import Array

Spans = list[tuple[float, float]]


def find_events(
    probabilities: Array,
    frame_s: float,
    duration_s: float,
    rules: EventRules,
    window_probabilities: Array | None = None,
    levels: Array | None = None,
) -> list[Event]:
    """The events of a recording, by start: none overlaps another of its label, and the best `max_events` are kept.

    `probabilities` `[F, L]` are those of each label in each frame; frame i covers [i, i + 1) · `frame_s` of the
    `duration_s` seconds. `window_probabilities` `[F, L]` are those of the window around each frame, where known: a
    label that its window doesn't have isn't looked for in its frames.
    With `levels` (see `audio.levels`), edges are moved to jumps in them.
    """
    events: list[Event] = []
    edges = None if levels is None else LevelEdges(levels, LEVEL_S)
    for label, label_rules in enumerate(rules.labels):
        scores = probabilities[:, label]
        gate = None if window_probabilities is None else window_probabilities[:, label]
        events += _label_events(scores, gate, label, frame_s, duration_s, label_rules, edges)
    best = sorted(events, key=lambda event: -event.score)[: rules.max_events]
    return sorted(best, key=lambda event: (event.start_s, event.label))


def _label_events(
    scores: Array,
    gate: Array | None,
    label: int,
    frame_s: float,
    duration_s: float,
    rules: LabelRules,
    edges: LevelEdges | None,
) -> Iterator[Event]:
    spans = hysteresis_spans(scores, frame_s, duration_s, rules.threshold)
    if edges is not None:
        spans = sorted(edges.moved(*span) for span in spans)
    for start_s, end_s in merged(spans, rules.gap_s):
        end_s = min(end_s, duration_s)
        first, last = int(start_s / frame_s), max(int(start_s / frame_s) + 1, math.ceil(end_s / frame_s))
        score = float(scores[first:last].max())
        if gate is not None:
            score = min(score, float(gate[first:last].max()))
        if end_s - start_s < rules.min_s or score < rules.threshold:
            continue
        for piece_start_s, piece_end_s in pieces(start_s, end_s, rules.max_s):
            yield Event(piece_start_s, piece_end_s, label, min(1.0, score))


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
