"""PSDS 1 of the DCASE challenges, by sed_scores_eval, without the penalty for varying over classes.

Bilen et al., «A framework for the robust evaluation of sound event detection» (2020): the area under the curve of the
mean rate of events that are found over the rate of false ones, over all thresholds, up to 100 false ones an hour.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.events.methods import Found
from training.evaluation.events.recordings import EmbeddedRecording

OVERLAP = 0.7
"""How much of a suggestion has to be true, and how much of a true event has to be found."""

MOST_FALSE_PER_HOUR = 100.0

NOTE = "psds1 is PSDS (0.7/0.7) by sed_scores_eval, without the penalty for variance over classes."

MISSING = (
    "psds1 is left out, for it needs sed_scores_eval with pandas 2: pip install sed_scores_eval “pandas<3” (training)."
)


def is_available() -> bool:
    """Whether sed_scores_eval is there, with a pandas that it can work with."""
    found = importlib.util.find_spec("sed_scores_eval") is not None
    return found and int(importlib.metadata.version("pandas").split(".")[0]) < 3


def psds1(found: Sequence[Found], recordings: Sequence[EmbeddedRecording], num_labels: int) -> float | None:
    """The PSDS of what was found in the recordings; None where `is_available` is false.

    Labels without any true event in the recordings are left out.
    """
    if not is_available():
        return None
    from sed_scores_eval.base_modules.scores import create_score_dataframe
    from sed_scores_eval.intersection_based import psds

    true_labels = {event.label for item in recordings for event in item.listed.events}
    labels = [label for label in range(num_labels) if label in true_labels]
    if not labels:
        return None
    scores, truth, durations_s = {}, {}, {}
    for number, (own, item) in enumerate(zip(found, recordings, strict=True)):
        name, durations_s[f"{number}"] = f"{number}", item.frames.duration_s
        values, times_s = score_steps(own, item.frames.duration_s)
        scores[name] = create_score_dataframe(values[:, labels], times_s, [str(label) for label in labels])
        truth[name] = [(event.start_s, event.end_s, str(event.label)) for event in item.listed.events]
    result: Any = psds(
        scores=scores,
        ground_truth=truth,
        audio_durations=durations_s,
        dtc_threshold=OVERLAP,
        gtc_threshold=OVERLAP,
        cttc_threshold=None,
        alpha_ct=0.0,
        alpha_st=0.0,
        unit_of_time="hour",
        max_efpr=MOST_FALSE_PER_HOUR,
    )
    return float(result[0])


def score_steps(found: Found, duration_s: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scores `[S, L]` that change only at the S + 1 moments `[S + 1]` in seconds.

    Where events have scores of their own, each event has its score all along, and what lies between has none: a curve
    over thresholds then takes or leaves whole events (arXiv 2406.04212).
    """
    num_labels = found.scores.shape[1]
    if not found.whole_events:
        times_s = np.minimum(np.arange(len(found.scores) + 1) * found.frame_s, duration_s)
        return found.scores.astype(np.float64), times_s
    edges = {0.0, duration_s, *(edge for event in found.events for edge in (event.start_s, event.end_s))}
    times_s = np.array(sorted(edges))
    values = np.zeros((len(times_s) - 1, num_labels))
    for event in found.events:
        first, last = np.searchsorted(times_s, [event.start_s, event.end_s])
        values[first:last, event.label] = event.score
    return values, times_s
