"""Decides whether a candidate is promoted: a paired bootstrap against the version in service and against zero-shot.

Only test clips are used. Each resample draws whole source recordings with all their clips, because clips of one
recording tend to fail together (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from clapboard.plurals import counted
from clapboard.suggest.scoring import Array
from training.evaluate import Report, Truth, report

CANDIDATE, IN_SERVICE, ZERO_SHOT = "the candidate", "the version in service", "zero-shot"

_Numbers = npt.NDArray[np.float64]
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Trial:
    """One control's N test clips: their true labels, and the scores `[N, L]` that each contender gives them."""

    control: str
    labels: tuple[str, ...]
    multiple: bool
    groups: Sequence[str]  # N source recordings
    truth: Truth  # [N, L]
    candidate: Array
    in_service: Array
    zero_shot: Array


@dataclass(frozen=True)
class Rules:
    """The rules by which a candidate is judged."""

    min_clips: int = 10
    min_recordings: int = 5  # with fewer, even winning on every one is no proof: 2⁻⁴ > 0.05
    confidence: float = 0.95  # of the lower bounds, one-sided
    max_fall: float = 0.2  # of any class's recall or average precision
    min_class_clips: int = 5  # a class with fewer isn't judged by itself
    num_resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Difference:
    """The candidate's lead over the contender `than`: in accuracy, or in mAP where labels don't exclude each other."""

    than: str
    estimate: float
    lower_bound: float


@dataclass(frozen=True)
class Change:
    """A class's recall (average precision where labels don't exclude each other) in service and with the candidate."""

    control: str
    label: str
    num_clips: int
    before: float
    after: float


@dataclass(frozen=True)
class Comparison:
    """The reports of all contenders on one control."""

    control: str
    candidate: Report
    in_service: Report
    zero_shot: Report


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate is promoted, the reason in one sentence, and the figures behind it."""

    promote: bool
    reason: str
    num_clips: int
    num_recordings: int
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]  # of each class with enough test clips, the largest fall first
    reports: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        values: dict[str, Any] = TypeAdapter(Verdict).dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The verdict that `to_json` returned. Raises `pydantic.ValidationError` for other values."""
        reports = [
            {name: Report.from_json(part) if name != "control" else part for name, part in comparison.items()}
            for comparison in values["reports"]
        ]
        return TypeAdapter(cls).validate_python(dict(values) | {"reports": reports})


def judge(trials: Sequence[Trial], rules: Rules | None = None) -> Verdict:
    """Returns the verdict on the candidate. Several controls are weighted by their numbers of test clips."""
    rules = rules or Rules()
    trials = [trial for trial in trials if len(trial.truth)]
    recordings = sorted({group for trial in trials for group in trial.groups})
    num_clips = max((len(trial.truth) for trial in trials), default=0)
    if num_clips < rules.min_clips or len(recordings) < rules.min_recordings:
        reason = (
            f"Not promoted: {counted(num_clips, 'test clip')} of {counted(len(recordings), 'recording')} "
            f"{'is' if num_clips == 1 else 'are'} too few to judge by. At least {rules.min_clips} clips of "
            f"{rules.min_recordings} recordings are needed: label more of the held-out tasks."
        )
        return Verdict(False, reason, num_clips, len(recordings), (), (), tuple(map(_comparison, trials)))
    differences = _differences(trials, recordings, rules)
    changes = tuple(sorted(_changes(trials, rules), key=lambda change: change.after - change.before))
    promote, reason = _decision(trials, differences, changes, rules)
    return Verdict(promote, reason, num_clips, len(recordings), differences, changes, tuple(map(_comparison, trials)))


def _decision(
    trials: Sequence[Trial], differences: Sequence[Difference], changes: Sequence[Change], rules: Rules
) -> tuple[bool, str]:
    """Whether to promote, and the reason as a sentence."""
    unproven = [difference for difference in differences if difference.lower_bound <= 0]
    if unproven:
        return False, f"Not promoted: {_why_unproven(trials, unproven)}."
    falls = [change for change in changes if change.before - change.after > rules.max_fall]
    if falls:
        names = " and ".join(f"“{c.label}” falls from {c.before:.2f} to {c.after:.2f}" for c in falls)
        return False, f"Not promoted: {names}, more than the {rules.max_fall} that a class may fall by."
    figures = " and ".join(f"than {d.than} by {d.estimate:.3f} (at least {d.lower_bound:.3f})" for d in differences)
    return True, f"Promoted: it is better {figures}, and no class falls by more than {rules.max_fall}."


def _why_unproven(trials: Sequence[Trial], unproven: Sequence[Difference]) -> str:
    num_clips = sum(len(trial.truth) for trial in trials)
    flawless = [difference.than for difference in unproven if _num_right(trials, difference.than) == num_clips]
    if flawless:
        before = f"all {num_clips} of {num_clips} test clips were right before, by {' and '.join(flawless)}"
        num_right = _num_right(trials, CANDIDATE)
        return before + (
            ", so nothing can be better" if num_right == num_clips else f"; by the candidate {num_right} are"
        )
    than = " and ".join(difference.than for difference in unproven)
    figures = dict.fromkeys(_figures(trials, difference) for difference in unproven)  # each once
    return f"it isn't surely better than {than} ({' and '.join(figures)})"


def _figures(trials: Sequence[Trial], difference: Difference) -> str:
    figures = f"{difference.estimate:+.3f}, at least {difference.lower_bound:+.3f}"
    if figures != "+0.000, at least +0.000":
        return figures
    num_right = _num_right(trials, CANDIDATE)
    if num_right is None:
        return "no difference on any test clip"
    return f"{num_right} of {sum(len(trial.truth) for trial in trials)} test clips right, as before"


def _num_right(trials: Sequence[Trial], contender: str) -> int | None:
    """The number of test clips that the contender labels correctly; None if a clip may have several labels."""
    if any(trial.multiple for trial in trials):
        return None
    scores = {CANDIDATE: "candidate", IN_SERVICE: "in_service", ZERO_SHOT: "zero_shot"}[contender]
    pairs = ((getattr(trial, scores).argmax(axis=1), trial.truth.argmax(axis=1)) for trial in trials)
    return sum(int((predicted == true).sum()) for predicted, true in pairs)


def _comparison(trial: Trial) -> Comparison:
    candidate, in_service, zero_shot = (
        report(scores, trial.truth, trial.labels, multiple=trial.multiple)
        for scores in (trial.candidate, trial.in_service, trial.zero_shot)
    )
    return Comparison(trial.control, candidate, in_service, zero_shot)


# The bootstrap


def _differences(trials: Sequence[Trial], recordings: Sequence[str], rules: Rules) -> tuple[Difference, ...]:
    """The candidate's lead over each of the two, with its lower bound over resampled recordings."""
    all_once = np.ones((1, len(recordings)))
    estimate = _leads(trials, recordings, all_once)[0]  # [2]
    resampled = np.concatenate([_leads(trials, recordings, counts) for counts in _resamples(trials, recordings, rules)])
    bounds = np.quantile(resampled, 1 - rules.confidence, axis=0, method="lower")  # [2]
    return tuple(
        Difference(than, float(lead), float(bound))
        for than, lead, bound in zip((IN_SERVICE, ZERO_SHOT), estimate, bounds, strict=True)
    )


def _resamples(trials: Sequence[Trial], recordings: Sequence[str], rules: Rules) -> Iterator[_Numbers]:
    """Batches `[R, G]` of how often each recording is drawn; `num_resamples` rows altogether."""
    rng = np.random.default_rng(rules.seed)
    batch_size = max(1, _CELLS_AT_ONCE // max(len(recordings), *(len(trial.truth) for trial in trials)))
    for start in range(0, rules.num_resamples, batch_size):
        size = min(batch_size, rules.num_resamples - start)
        yield rng.multinomial(len(recordings), np.full(len(recordings), 1 / len(recordings)), size).astype(np.float64)


def _leads(trials: Sequence[Trial], recordings: Sequence[str], counts: _Numbers) -> _Numbers:
    """The candidate's lead over both contenders in each resample: `[R, 2]` from `[R, G]`."""
    place = {recording: index for index, recording in enumerate(recordings)}
    leads, total = np.zeros((len(counts), 2)), np.zeros((len(counts), 1))
    for trial in trials:
        times = counts[:, [place[group] for group in trial.groups]]  # [R, N]
        clips = times.sum(axis=1, keepdims=True)
        candidate, *others = (
            _figure(scores, trial, times) for scores in (trial.candidate, trial.in_service, trial.zero_shot)
        )
        leads += clips * np.stack([candidate - other for other in others], axis=1)
        total += clips
    return leads / np.maximum(total, 1)


def _figure(scores: Array, trial: Trial, times: _Numbers) -> _Numbers:
    """Accuracy, or mAP, `[R]` of the clips, each counted as often as `times` `[R, N]` says."""
    if trial.multiple:
        return _mean_average_precision(scores, trial.truth, times)
    right = scores.argmax(axis=1) == trial.truth.argmax(axis=1)
    return times @ right / np.maximum(times.sum(axis=1), 1)


def _mean_average_precision(scores: Array, truth: Truth, times: _Numbers) -> _Numbers:
    """The mean average precision `[R]` over the labels that a drawn clip has; 0 where no drawn clip has any."""
    total, present = np.zeros(len(times)), np.zeros(len(times))
    for label_scores, label_truth in zip(scores.T, truth.T, strict=True):
        has_clip = times @ label_truth > 0
        total += np.where(has_clip, _average_precision(label_scores, label_truth, times), 0)
        present += has_clip
    return total / np.maximum(present, 1)


def _average_precision(scores: Array, truth: npt.NDArray[np.bool_], times: _Numbers) -> _Numbers:
    """The area `[R]` under the precision–recall steps of clips counted `times` each; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    steps = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    ranked = times[:, order]
    hits = np.cumsum(ranked * truth[order], axis=1)[:, steps]
    predicted = np.cumsum(ranked, axis=1)[:, steps]
    new_hits = np.diff(hits, axis=1, prepend=0)
    return (new_hits * hits / np.maximum(predicted, 1)).sum(axis=1) / np.maximum(hits[:, -1], 1)


def _changes(trials: Sequence[Trial], rules: Rules) -> Iterator[Change]:
    """The change of each class that has enough test clips."""
    for trial in trials:
        before, after = (_by_class(scores, trial) for scores in (trial.in_service, trial.candidate))
        for index, num_clips in enumerate(trial.truth.sum(axis=0).tolist()):
            if num_clips >= rules.min_class_clips:
                values = float(before[index]), float(after[index])
                yield Change(trial.control, trial.labels[index], num_clips, *values)


def _by_class(scores: Array, trial: Trial) -> _Numbers:
    """Each class's recall, or average precision, `[L]`."""
    if trial.multiple:
        once = np.ones((1, len(scores)))
        pairs = zip(scores.T, trial.truth.T, strict=True)
        return np.array([_average_precision(*pair, once)[0] for pair in pairs])
    predicted = scores.argmax(axis=1)
    hits = trial.truth[np.arange(len(predicted)), predicted]
    return np.bincount(predicted[hits], minlength=scores.shape[1]) / np.maximum(trial.truth.sum(axis=0), 1)
