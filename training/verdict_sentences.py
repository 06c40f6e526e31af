"""What the gate says of a candidate, in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

from clapboard.plurals import counted, plural
from training.verdict import Change, Difference, Looked


def promoted(differences: Sequence[Difference], looked: Looked, max_fall: float) -> str:
    """Why a candidate is promoted."""
    figures = " and ".join(f"than {lead.than} by {lead.estimate:.3f}" for lead in differences)
    chance = max(lead.chance for lead in differences)
    return (
        f"Promoted: it is better {figures} ({_by_chance(chance, looked)}), and no class falls by more than {max_fall}."
    )


def too_few(num_clips: int, num_recordings: int, min_clips: int, min_recordings: int) -> str:
    """That there is too little to judge by."""
    return (
        f"Not promoted: {counted(num_clips, 'test clip')} of {counted(num_recordings, 'recording')} "
        f"{plural(num_clips, 'is', 'are')} too few to judge by. At least {min_clips} clips of {min_recordings} "
        "recordings are needed: label more of the held-out tasks."
    )


def falls(changes: Sequence[Change], max_fall: float) -> str:
    """Which classes fall by too much."""
    names = " and ".join(f"“{c.label}” falls from {c.before:.2f} to {c.after:.2f}" for c in changes)
    return f"Not promoted: {names}, more than the {max_fall} that a class may fall by."


def unproven(
    differences: Sequence[Difference],
    looked: Looked,
    num_clips: int,
    num_right: Sequence[int | None],
    candidate: int | None,
) -> str:
    """Why it isn't sure that the candidate is better.

    `num_right` is how many of the clips each contender in `differences` has right, and `candidate` how many the
    candidate has; None where a clip may have several labels.
    """
    pairs = list(zip(differences, num_right, strict=True))
    flawless = [lead.than for lead, right in pairs if right == num_clips]
    if flawless:
        before = f"all {num_clips} of {num_clips} test clips were right before, by {' and '.join(flawless)}"
        after = ", so nothing can be better" if candidate == num_clips else f"; by the candidate {candidate} are"
        return f"Not promoted: {before}{after}."
    than = " and ".join(lead.than for lead in differences)
    figures = dict.fromkeys(_figures(lead, looked, num_clips, candidate) for lead in differences)  # each once
    return f"Not promoted: it isn't surely better than {than} ({' and '.join(figures)})."


def explanation(
    differences: Sequence[Difference], looked: Looked, num_held_out: int, num_fitted: int, num_folds: int, alpha: float
) -> str:
    """How a verdict came about, in plain words."""
    clips = f"It was judged on {counted(num_held_out, 'held-out clip')}, which the candidate itself answered"
    if num_fitted:
        clips += (
            f", and on {counted(num_fitted, 'labelled clip')}, each answered by one of {num_folds} models that were "
            "made as the candidate was, but without that clip's label"
        )
    leads = " and ".join(f"over {lead.than} {_digits(lead.chance)}" for lead in differences)
    num_before = looked.number - 1
    count = (
        f"{counted(num_before, 'candidate')} {plural(num_before, 'was', 'were')} judged on the same evidence before"
        if num_before
        else "No candidate was judged on the same evidence before"
    )
    return (
        f"{clips}. Counted was how near the scores come to the labels, recording by recording. The chance of such a "
        f"lead if both were equally good: {leads}. {count}, so at most {_digits(looked.allowed)} is allowed: then, of "
        f"all candidates that are no better, at most {alpha:.0%} are ever promoted on this evidence."
    )


def _figures(lead: Difference, looked: Looked, num_clips: int, num_right: int | None) -> str:
    if lead.estimate or lead.nearness:
        return f"{lead.estimate:+.3f}; {_by_chance(lead.chance, looked)}"
    if num_right is None:
        return "no difference on any test clip"
    return f"{num_right} of {num_clips} test clips right, as before"


def _by_chance(chance: float, looked: Looked) -> str:
    return f"by chance: {_digits(chance)}, allowed {_digits(looked.allowed)}"


def _digits(chance: float) -> str:
    """The chance with two significant digits, never as 0."""
    return f"{chance:.5f}" if chance < 0.001 else f"{chance:.2g}"
