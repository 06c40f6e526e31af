"""Whether a trial is decided by the labels that have come so far, and the reason in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clapboard.plurals import counted
from clapboard.store.trials import Answer, Kind, State, Trial
from training.sequential import Earlier, crossing


@dataclass(frozen=True)
class TrialVerdict:
    """How a trial ends, and why."""

    state: State
    reason: str
    num_labels: int = 0  # by which it was decided


def judge_trial(trial: Trial, answers: Sequence[Answer]) -> TrialVerdict | None:
    """The verdict on the answers in their order; None while they leave it open.

    The answers after the one that decides count for nothing, so it doesn't matter how often anybody looks.
    """
    leads = [answer.lead for answer in answers]
    earlier = earlier_evidence(trial)
    if is_better := _decided(trial, answers, leads, earlier, 1.0):
        return TrialVerdict(State.PROMOTED, _reason(trial, answers[:is_better], "surely better"), is_better)
    # The gate has seen that a canary's candidate is likely better; that it is worse has to be shown from nothing.
    if is_worse := _decided(trial, answers, [-lead for lead in leads], None, -1.0):
        return TrialVerdict(State.DROPPED, _reason(trial, answers[:is_worse], "surely worse"), is_worse)
    if len(answers) >= trial.num_labels:
        return TrialVerdict(
            State.UNDECIDED, _reason(trial, answers[: trial.num_labels], "neither surely better nor surely worse")
        )
    return None


def earlier_evidence(trial: Trial) -> Earlier | None:
    """What the gate has seen of a canary's candidate."""
    if not trial.evidence:
        return None
    leads = np.array(trial.evidence["leads"], np.float64)
    return Earlier(leads, trial.evidence["num_folds"], trial.evidence["alpha"])


def _decided(
    trial: Trial, answers: Sequence[Answer], leads: Sequence[float], earlier: Earlier | None, sign: float
) -> int | None:
    """After how many answers it is sure, and the right suggestions don't say the contrary; None if it isn't."""
    first = crossing(leads, alpha=trial.alpha, num_labels=trial.num_labels, earlier=earlier, seed=trial.id)
    if first is None:
        return None
    right = float(trial.evidence["right"]) if earlier is not None else 0.0
    for number, answer in enumerate(answers[: trial.num_labels], 1):
        right += answer.right
        if number >= first and sign * right >= -1e-9:
            return number
    return None


def _reason(trial: Trial, answers: Sequence[Answer], outcome: str) -> str:
    labels = counted(len(answers), "further label")
    mean = sum(answer.lead for answer in answers) / max(1, len(answers))
    right = sum(answer.right for answer in answers)
    whose = "the candidate's scores" if trial.kind is Kind.CANARY else "the scores of the heads since"
    return (
        f"{outcome.capitalize()} than {trial.reference} by {labels}: {whose} come nearer to them by {mean:+.3f} each, "
        f"and {right:+g} suggestions are right."
    )
