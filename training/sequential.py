"""Whether one of two versions is surely better, looked at after every further label: a sequential exchange test.

Both versions' scores of every clip that people label are known, whichever of the two they were shown, so each label
gives a lead: one version's nearness (`training.significance`) minus the other's. If both were equally good, exchanging
their scores on any clip would change nothing: each lead would as likely have the other sign.

So the course of the sum of leads is compared with those that random exchanges of the same leads give. After n of at
most N labels, a share α · (n / N)^`BEND` of all courses has crossed: those which stood highest. The observed course is
one of them, so it crosses with a chance of at most α if both are equally good, however often anybody looks. That is an
exact permutational group sequential test (Mehta, Patel & Senchaudhuri 1994) with a look at each label, whose α is spent
as by Kim & DeMets (1987). A betting martingale would hold for ever (Ramdas et al. 2023), but find less within N labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training.significance import Numbers, widening

BEND = 2.0
"""Above 1, little of α is spent on early looks, and more is left for the last ones, which see most."""

NUM_EXCHANGES = 20_000


@dataclass(frozen=True, eq=False)
class Earlier:
    """Leads `[G]` that a fixed test looked at before, spending `alpha`; `num_folds` as in `chance_of_lead`."""

    leads: Numbers = field(default_factory=lambda: np.zeros(0))
    num_folds: int = 0
    alpha: float = 0.0


def crossing(
    leads: Sequence[float], *, alpha: float, num_labels: int, earlier: Earlier | None = None, seed: int = 0
) -> int | None:
    """After how many labels (from 1) the leads are surely above 0; None if they aren't within `num_labels` labels.

    `alpha`, with that of `earlier` looks, is at most 0.05. Appending leads never changes the answer once it is a
    number. `earlier` leads count in the sum; the courses that their test let through are left out, as the observed one
    wasn't.
    """
    last = _last_near(leads[:num_labels], earlier)
    rng = np.random.default_rng(seed)
    sums = np.zeros(1 + NUM_EXCHANGES)  # the observed course is the first
    is_open = np.ones(len(sums), bool)
    size = 0.0
    if earlier is not None and len(earlier.leads):
        signs = rng.integers(0, 2, (NUM_EXCHANGES, len(earlier.leads)), np.int8)
        sums[0] = earlier.leads.sum()
        sums[1:] = widening(earlier.num_folds) * (2.0 * (signs @ earlier.leads) - earlier.leads.sum())
        size = float(np.abs(earlier.leads).sum())
        let_through = int(earlier.alpha * len(sums))
        is_open[1:][np.argsort(-sums[1:], kind="stable")[:let_through]] = False
    num_crossed = 0
    for number, lead in enumerate(leads[:last], 1):
        sums[0] += lead
        sums[1:] += np.where(rng.integers(0, 2, NUM_EXCHANGES, np.int8) == 1, lead, -lead)
        size += abs(lead)
        num_may = int(alpha * (number / num_labels) ** BEND * len(sums)) - num_crossed
        if num_may <= 0:
            continue
        still = np.flatnonzero(is_open)
        boundary = np.partition(sums[still], -1 - num_may)[-1 - num_may] + 1e-9 * size  # equal sums may differ a little
        crossed = still[sums[still] > boundary]
        if len(crossed) and crossed[0] == 0:
            return number
        is_open[crossed] = False
        num_crossed += len(crossed)
    return None


def _last_near(leads: Sequence[float], earlier: Earlier | None) -> int:
    """After how many labels the sum of leads was last at least its standard deviation over all exchanges; 0: never.

    Else it can't have crossed: at least 5 % of all exchanges reach that (Oleszkiewicz 1996), which is all of α.
    """
    before = np.zeros(0) if earlier is None else earlier.leads
    variance = np.square(before).sum() * (widening(earlier.num_folds) ** 2 if earlier else 1.0)
    deviations = np.sqrt(variance + np.cumsum(np.square(leads)))
    near = np.flatnonzero(before.sum() + np.cumsum(leads) >= (1 - 1e-9) * deviations)
    return int(near[-1]) + 1 if len(near) else 0
