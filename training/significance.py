"""How surely one version's scores come nearer to people's labels than another's, on the same recordings.

Nearness is 1 − Brier's score (Brier 1950), a proper score that counts how sure each suggestion is. On a hundred clips
it shows differences that right answers alone hide (tests/bench/gate.py). The scores of the true labels alone, at a
temperature fitted to the same clips, show more, but also what isn't there.

The test is a paired permutation test by recording (Good, Permutation Tests, 2000, chapter 3): if both versions were
equally good, exchanging their scores on any recording would change nothing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from clapboard.suggest.scoring import Array
from training.evaluate import Truth

Numbers = npt.NDArray[np.float64]

_CELLS_AT_ONCE = 4_000_000


def nearness(scores: Array, truth: Truth, *, multiple: bool) -> Numbers:
    """How near each clip's scores come to its labels, `[N]` in [0, 1], from scores and truth `[N, L]`."""
    distances = np.square(scores.astype(np.float64) - truth)
    worst = truth.shape[1] if multiple else 2.0
    values: Numbers = 1.0 - distances.sum(axis=1) / worst
    return values


def chance_of_lead(leads: Numbers, *, num_folds: int, num_exchanges: int, seed: int) -> float:
    """The chance of so large a sum of leads `[G]`, one for each recording, if both versions were equally good.

    Of `num_exchanges` random exchanges, and the observed one, it is the share whose sum is as large. One-sided.
    """
    if not leads.any():
        return 1.0
    rng = np.random.default_rng(seed)
    factor = widening(num_folds)
    observed = leads.sum() - 1e-9 * np.abs(leads).sum()  # equal sums may differ by rounding errors
    num_as_large = 0
    batch_size = max(1, _CELLS_AT_ONCE // len(leads))
    for start in range(0, num_exchanges, batch_size):
        kept = rng.integers(0, 2, (min(batch_size, num_exchanges - start), len(leads)), np.int8)  # 0: exchanged
        num_as_large += int((factor * (2.0 * (kept @ leads) - leads.sum()) >= observed).sum())
    return (1 + num_as_large) / (1 + num_exchanges)


def widening(num_folds: int) -> float:
    """How many times as large a sum of leads has to count as if they were independent; 1 without folds.

    Models of different folds share labels to learn from, so cross-fitted leads vary more than independent ones would:
    their variance is taken as 1 + √(1 / (num_folds − 1)) times as large. The root is our own rule. Nadeau & Bengio
    (2003) add the ratio of test to training clips, which is what stands under it, times the number of folds; simulated
    candidates that are no better need less: 2.0, 1.7 and 1.4 at 2, 3 and 5 folds.
    """
    return math.sqrt(1 + math.sqrt(1 / (num_folds - 1))) if num_folds > 1 else 1.0


def allowed_chance(alpha: float, number: int) -> float:
    """What the `number`-th candidate (from 1) may claim of the false promotions `alpha` that all of them share.

    The shares α / (k · (k + 1)) sum to α over all k, so the bound holds however many candidates come (Bonferroni's
    inequality; such a sequence is called alpha spending: Foster & Stine 2008).
    """
    return alpha / (number * (number + 1))
