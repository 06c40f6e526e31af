"""Decides whether a candidate is promoted: a paired test against the version in service and against zero-shot.

It is judged by clips from which whoever answers has not learnt: held-out ones, answered by the candidate itself, and
labelled ones, answered by models that were made as the candidate was, but from other labels
(`training.finetuning.cross_fitting`). Clips of one recording tend to fail together, so the test counts recordings. A
candidate that is judged on the same evidence as earlier ones has to be the surer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clapboard.suggest.scoring import Array
from training import verdict_sentences as sentences
from training.evaluate import Truth, mean_average_precision, report
from training.significance import Numbers, allowed_chance, chance_of_lead, nearness
from training.verdict import Change, Comparison, Difference, Likely, Look, Looked, Verdict

GATE_SHARE = 0.5
"""The part of the allowed false promotions that all looks of the gate may spend where trials spend the rest."""

CANDIDATE, IN_SERVICE, ZERO_SHOT = "the candidate", "the version in service", "zero-shot"


@dataclass(frozen=True, eq=False)
class Trial:
    """One control's N clips: their true labels, and the scores `[N, L]` that each contender gives them."""

    control: str
    labels: tuple[str, ...]
    multiple: bool
    groups: Sequence[str]  # N source recordings
    truth: Truth  # [N, L]
    candidate: Array
    in_service: Array
    zero_shot: Array
    folds: Sequence[int] = ()  # N: the fold whose models answered; 0, or no folds: the clip is held out


@dataclass(frozen=True)
class Rules:
    """The rules by which a candidate is judged."""

    min_clips: int = 10  # held out
    min_recordings: int = 6  # with fewer, even winning on every one is no proof: 2⁻⁵ > 0.025
    alpha: float = 0.05  # of all candidates judged on the same evidence, the share of false promotions
    max_fall: float = 0.2  # of any class's recall or average precision
    min_class_clips: int = 5  # a class with fewer isn't judged by itself
    num_exchanges: int = 50_000
    seed: int = 0
    max_chance: float = 0.4  # that a lead is chance, of a candidate that is likely better and goes on trial


@dataclass(frozen=True)
class _Evidence:
    """How many clips and recordings there are, of which kind, and what was looked at."""

    num_clips: int
    num_held_out: int
    num_folds: int
    recordings: tuple[str, ...]

    @property
    def look(self) -> Look:
        return "all" if self.num_folds else "held out"


def judge(
    trials: Sequence[Trial],
    rules: Rules | None = None,
    *,
    earlier: Sequence[Collection[str]] = (),
    share: float = 1.0,
) -> Verdict:
    """Returns the verdict on the candidate. Several controls are weighted by their numbers of clips.

    `earlier` has, for each candidate judged before by such a look, the recordings' digests from its verdict. `share` is
    the part of `rules.alpha` that this look may spend.
    """
    rules = rules or Rules()
    trials = [trial for trial in trials if len(trial.truth)]
    evidence = _evidence(trials)
    reports = tuple(map(_comparison, trials))
    held_out = {group for trial in trials for group, fold in _by_fold(trial) if not fold}
    if evidence.num_held_out < rules.min_clips or len(held_out) < rules.min_recordings:
        reason = sentences.too_few(evidence.num_held_out, len(held_out), rules.min_clips, rules.min_recordings)
        return _verdict(False, reason, evidence, reports=reports)
    looked = _look(evidence, rules, earlier, share)
    differences = _differences(trials, evidence, rules)
    changes = tuple(sorted(_changes(trials, rules), key=lambda change: change.after - change.before))
    promote, reason = _decision(trials, differences, changes, looked, rules)
    num_fitted = evidence.num_clips - evidence.num_held_out
    explanation = sentences.explanation(
        differences, looked, evidence.num_held_out, num_fitted, evidence.num_folds, rules.alpha
    )
    verdict = _verdict(promote, reason, evidence, explanation, differences, changes, reports, (looked,))
    return (
        verdict if promote else replace(verdict, likely=_likely(trials, evidence, differences, changes, looked, rules))
    )


def shares_evidence(today: Collection[str], before: Collection[str]) -> bool:
    """Whether at least half of today's recordings are among those of an earlier verdict: else the evidence is new."""
    return 2 * len(set(today) & set(before)) >= len(set(today))


def _verdict(
    promote: bool,
    reason: str,
    evidence: _Evidence,
    explanation: str = "",
    differences: tuple[Difference, ...] = (),
    changes: tuple[Change, ...] = (),
    reports: tuple[Comparison, ...] = (),
    looks: tuple[Looked, ...] = (),
) -> Verdict:
    return Verdict(
        promote=promote,
        reason=reason,
        explanation=explanation,
        num_clips=evidence.num_clips,
        num_recordings=len(evidence.recordings),
        num_held_out=evidence.num_held_out,
        num_folds=evidence.num_folds,
        differences=differences,
        changes=changes,
        reports=reports,
        looks=looks,
    )


def _by_fold(trial: Trial) -> Iterator[tuple[str, int]]:
    return zip(trial.groups, trial.folds or [0] * len(trial.groups), strict=True)


def _evidence(trials: Sequence[Trial]) -> _Evidence:
    folds = [[fold for _, fold in _by_fold(trial)] for trial in trials]
    return _Evidence(
        num_clips=max(map(len, folds), default=0),
        num_held_out=max((part.count(0) for part in folds), default=0),
        num_folds=max((fold for part in folds for fold in part), default=0),
        recordings=tuple(sorted({group for trial in trials for group in trial.groups})),
    )


def _look(evidence: _Evidence, rules: Rules, earlier: Sequence[Collection[str]], share: float) -> Looked:
    recordings = tuple(hashlib.sha256(name.encode()).hexdigest()[:8] for name in evidence.recordings)
    number = 1 + sum(shares_evidence(recordings, before) for before in earlier)
    return Looked(evidence.look, number, allowed_chance(share * rules.alpha, number), recordings)


def _decision(
    trials: Sequence[Trial],
    differences: Sequence[Difference],
    changes: Sequence[Change],
    looked: Looked,
    rules: Rules,
) -> tuple[bool, str]:
    """Whether to promote, and the reason as a sentence."""
    unproven = [lead for lead in differences if lead.chance > looked.allowed or lead.estimate <= 0]
    if unproven:
        num_right = [_num_right(trials, lead.than) for lead in unproven]
        num_clips = sum(len(trial.truth) for trial in trials)
        return False, sentences.unproven(unproven, looked, num_clips, num_right, _num_right(trials, CANDIDATE))
    falls = [change for change in changes if change.before - change.after > rules.max_fall]
    if falls:
        return False, sentences.falls(falls, rules.max_fall)
    return True, sentences.promoted(differences, looked, rules.max_fall)


def _likely(
    trials: Sequence[Trial],
    evidence: _Evidence,
    differences: Sequence[Difference],
    changes: Sequence[Change],
    looked: Looked,
    rules: Rules,
) -> Likely | None:
    """What a trial goes on from; None if the candidate isn't likely better than the version in service.

    That it is better than zero-shot has to be sure already, unless that is in service.
    """
    in_service, zero_shot = differences
    leads, others = (_leads(trials, evidence.recordings, than) for than in (IN_SERVICE, ZERO_SHOT))
    is_open = in_service.chance <= rules.max_chance
    is_open &= zero_shot.chance <= looked.allowed or bool(np.array_equal(leads, others))
    if not is_open or any(change.before - change.after > rules.max_fall for change in changes):
        return None
    right, before = (_num_right(trials, contender) or 0 for contender in (CANDIDATE, IN_SERVICE))
    return Likely(tuple(round(lead, 6) for lead in leads.tolist()), evidence.num_folds, right - before, looked.allowed)


def _num_right(trials: Sequence[Trial], contender: str) -> int | None:
    """The number of clips that the contender labels correctly; None if a clip may have several labels."""
    if any(trial.multiple for trial in trials):
        return None
    pairs = ((_scores(trial, contender).argmax(axis=1), trial.truth.argmax(axis=1)) for trial in trials)
    return sum(int((predicted == true).sum()) for predicted, true in pairs)


def _scores(trial: Trial, contender: str) -> Array:
    return {CANDIDATE: trial.candidate, IN_SERVICE: trial.in_service, ZERO_SHOT: trial.zero_shot}[contender]


def _comparison(trial: Trial) -> Comparison:
    candidate, in_service, zero_shot = (
        report(scores, trial.truth, trial.labels, multiple=trial.multiple)
        for scores in (trial.candidate, trial.in_service, trial.zero_shot)
    )
    return Comparison(trial.control, candidate, in_service, zero_shot)


# The figures


def _differences(trials: Sequence[Trial], evidence: _Evidence, rules: Rules) -> tuple[Difference, ...]:
    """The candidate's lead over each of the two."""
    total = sum(len(trial.truth) for trial in trials)
    differences = []
    for than in (IN_SERVICE, ZERO_SHOT):
        leads = _leads(trials, evidence.recordings, than)
        estimate = sum(len(t.truth) * (_figure(t.candidate, t) - _figure(_scores(t, than), t)) for t in trials) / total
        chance = chance_of_lead(leads, num_folds=evidence.num_folds, num_exchanges=rules.num_exchanges, seed=rules.seed)
        differences.append(Difference(than, float(estimate), float(leads.sum() / total), chance))
    return tuple(differences)


def _leads(trials: Sequence[Trial], recordings: Sequence[str], than: str) -> Numbers:
    """The candidate's lead in nearness, summed over each recording's clips: `[G]`."""
    place = {recording: index for index, recording in enumerate(recordings)}
    leads = np.zeros(len(recordings))
    for trial in trials:
        candidate, other = (
            nearness(scores, trial.truth, multiple=trial.multiple) for scores in (trial.candidate, _scores(trial, than))
        )
        np.add.at(leads, [place[group] for group in trial.groups], candidate - other)
    return leads


def _figure(scores: Array, trial: Trial) -> float:
    """Accuracy, or mAP."""
    if trial.multiple:
        return mean_average_precision(scores, trial.truth) or 0.0
    return float((scores.argmax(axis=1) == trial.truth.argmax(axis=1)).mean())


def _changes(trials: Sequence[Trial], rules: Rules) -> Iterator[Change]:
    """The change of each class that has enough clips."""
    for trial in trials:
        before, after = (_by_class(scores, trial) for scores in (trial.in_service, trial.candidate))
        for index, num_clips in enumerate(trial.truth.sum(axis=0).tolist()):
            if num_clips >= rules.min_class_clips:
                values = float(before[index]), float(after[index])
                yield Change(trial.control, trial.labels[index], num_clips, *values)


def _by_class(scores: Array, trial: Trial) -> npt.NDArray[np.float64]:
    """Each class's recall, or average precision, `[L]`; 0 for a class without clips."""
    if trial.multiple:
        pairs = zip(scores.T, trial.truth.T, strict=True)
        return np.array([mean_average_precision(s[:, None], truth[:, None]) or 0.0 for s, truth in pairs])
    predicted = scores.argmax(axis=1)
    hits = trial.truth[np.arange(len(predicted)), predicted]
    return np.bincount(predicted[hits], minlength=scores.shape[1]) / np.maximum(trial.truth.sum(axis=0), 1)
