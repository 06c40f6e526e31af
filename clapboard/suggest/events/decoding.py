"""The labels that best explain a recording's frames, when a change of label costs less where the signal changes.

In each moment one label sounds or none, and the sequence with the most evidence is sought (Viterbi 1967): the frames'
logits, summed over time, less a cost for each change. Where the level jumps, a change is nearly free; anywhere else it
has to be worth some seconds of evidence. So a short dip doesn't cut an event in two, no frame is an event of its own,
and edges lie where the sound begins and ends rather than where a blurred score crosses a threshold.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clapboard.suggest.events.level_jumps import LevelJumps
from clapboard.suggest.scoring import Array

Spans = list[tuple[float, float]]
Rows = npt.NDArray[np.float64]

_BIAS = 1.0  # added to each logit: an event's evidence is more than that of its weakest frames
_MOST_EVIDENCE = 4.0  # of one frame, for or against
_CHANGE_COST = 4.0
_RELIEF_PER_DB = 0.4
_MOST_RELIEF_DB = 8.0
_UNKNOWN_JUMP_DB = 4.0  # without levels, any moment could be one
_RELABEL_SHARE = 0.5  # of the cost, more for a change from label to label
_STEP_S = 0.25  # between moments at which a change is possible, beside those with a jump
_MIN_LOGIT_SHARE = 1e-4


def decoded_spans(probabilities: Array, frame_s: float, duration_s: float, jumps: LevelJumps | None) -> list[Spans]:
    """For each label, start and end in seconds of its events: from probabilities `[F, L]`, F ≥ 1."""
    borders = _borders(duration_s, jumps)  # [S + 1]
    evidence = _evidence(probabilities, frame_s, borders)  # [S, L]
    rises, falls = _jumps_at(borders[:-1], jumps)
    states = _best_states(evidence, _cost(rises), _cost(falls))
    return [_spans(states == label, borders) for label in range(evidence.shape[1])]


def _borders(duration_s: float, jumps: LevelJumps | None) -> Rows:
    """The moments at which a label may begin or end, from 0 to the recording's end."""
    steps = np.arange(0.0, duration_s, _STEP_S)
    inner = steps if jumps is None else np.union1d(steps, jumps.moments_s)
    return np.append(inner[inner < duration_s - 1e-3], duration_s)


def _evidence(probabilities: Array, frame_s: float, borders: Rows) -> Rows:
    """The integral of each label's logit, interpolated between frames, from each border to the next: `[S, L]`."""
    clipped = np.clip(probabilities.astype(np.float64), _MIN_LOGIT_SHARE, 1 - _MIN_LOGIT_SHARE)
    logits = np.clip(np.log(clipped / (1 - clipped)) + _BIAS, -_MOST_EVIDENCE, _MOST_EVIDENCE)
    middles = 0.5 * (borders[:-1] + borders[1:])
    place = np.clip(middles / frame_s - 0.5, 0, len(logits) - 1)
    before = np.minimum(place.astype(int), max(0, len(logits) - 2))
    after = np.minimum(before + 1, len(logits) - 1)
    share = (place - before)[:, None]
    return (logits[before] * (1 - share) + logits[after] * share) * (np.diff(borders) / frame_s)[:, None]


def _jumps_at(moments_s: Rows, jumps: LevelJumps | None) -> tuple[Rows, Rows]:
    if jumps is None:
        return np.full(len(moments_s), _UNKNOWN_JUMP_DB), np.full(len(moments_s), _UNKNOWN_JUMP_DB)
    return jumps.at(moments_s)


def _cost(jumps_db: Rows) -> Rows:
    return _CHANGE_COST - _RELIEF_PER_DB * np.minimum(jumps_db, _MOST_RELIEF_DB)


def _best_states(evidence: Rows, start_cost: Rows, end_cost: Rows) -> npt.NDArray[np.int64]:
    """The label in each step `[S]`, −1 for none, with the most evidence less costs."""
    num_steps, num_labels = evidence.shape
    relabel_cost = np.minimum(start_cost, end_cost) + _RELABEL_SHARE * _CHANGE_COST
    none, values = 0.0, np.full(num_labels, -np.inf)
    from_none = np.zeros(num_steps, np.int64)  # the label that «none» came from, −1 for none
    came_from = np.zeros((num_steps, num_labels), np.int64)  # what each label came from
    own = np.arange(num_labels)
    for step in range(num_steps):
        best = int(values.argmax())
        most = values[best]
        begun, relabelled = none - start_cost[step], most - relabel_cost[step]
        entry, source = (begun, -1) if begun >= relabelled else (relabelled, best)
        enters = values < entry
        came_from[step] = np.where(enters, source, own)
        ended = most - end_cost[step]
        from_none[step] = best if ended > none else -1
        none = max(none, ended)
        values = np.where(enters, entry, values) + evidence[step]
    states = np.empty(num_steps, np.int64)
    state = int(values.argmax()) if num_labels and values.max() > none else -1
    for step in range(num_steps - 1, -1, -1):
        states[step] = state
        state = int(from_none[step] if state < 0 else came_from[step, state])
    return states


def _spans(active: npt.NDArray[np.bool_], borders: Rows) -> Spans:
    change = np.diff(active.astype(np.int8), prepend=0, append=0)
    firsts, lasts = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    return list(zip(borders[firsts].tolist(), borders[lasts].tolist(), strict=True))
