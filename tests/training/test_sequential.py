"""The sequential test: its error rates by simulation, and that looking often changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from training.sequential import Earlier, crossing
from training.significance import Numbers, allowed_chance, chance_of_lead

Draw = Callable[[np.random.Generator, int], Numbers]


def discordant(rng: np.random.Generator, number: int) -> Numbers:
    """Versions that differ on one clip in eight, by as much each time."""
    return rng.choice([-1.0, 1.0], number) * (rng.random(number) < 0.125)


def heavy(rng: np.random.Generator, number: int) -> Numbers:
    """Few large leads among many small ones."""
    return rng.normal(size=number) * np.exp(1.5 * rng.normal(size=number))


@pytest.mark.parametrize("draw", [discordant, heavy])
def test_versions_that_are_equally_good_cross_in_at_most_5_percent(draw: Draw) -> None:
    rng = np.random.default_rng(0)
    crossed = [crossing(draw(rng, 60), alpha=0.05, num_labels=60, seed=seed) for seed in range(80)]
    assert sum(number is not None for number in crossed) <= 80 * 0.05 + 2 * np.sqrt(80 * 0.05)


def test_a_steady_lead_is_found_early_and_a_weak_one_by_the_end() -> None:
    rng = np.random.default_rng(1)
    strong = [crossing(rng.normal(0.8, 1, 60), alpha=0.05, num_labels=60, seed=seed) for seed in range(12)]
    assert all(number is not None and number < 50 for number in strong)
    weak = [crossing(rng.normal(0.4, 1, 60), alpha=0.05, num_labels=60, seed=seed) for seed in range(24)]
    assert sum(number is not None for number in weak) >= 16  # a test that looks once would find 0.93 of them


def test_a_worse_version_never_crosses() -> None:
    leads = np.random.default_rng(2).normal(-0.3, 1, 200)
    assert crossing(leads, alpha=0.05, num_labels=200) is None


@pytest.mark.parametrize("leads", [[], [0.0] * 60, [0.5] * 4])
def test_without_differences_or_with_few_labels_nothing_is_sure(leads: list[float]) -> None:
    assert crossing(leads, alpha=0.05, num_labels=60) is None


def test_what_comes_later_or_how_often_anybody_looks_changes_nothing() -> None:
    leads = np.random.default_rng(3).normal(0.6, 1, 60).tolist()
    number = crossing(leads, alpha=0.05, num_labels=60)
    assert number is not None
    looks = [crossing(leads[:seen], alpha=0.05, num_labels=60) for seen in range(61)]
    assert looks == [None] * number + [number] * (61 - number)
    assert crossing(leads[:number] + [-50.0] * 20, alpha=0.05, num_labels=60) == number


def test_after_so_many_labels_it_has_ended() -> None:
    leads = [-0.1] * 60 + [5.0] * 60
    assert crossing(leads, alpha=0.05, num_labels=60) is None


def test_what_was_seen_before_counts_and_both_looks_together_keep_the_level() -> None:
    rng = np.random.default_rng(4)
    alpha = allowed_chance(0.025, 1)
    leads = rng.normal(0.15, 1, 200)
    before = rng.normal(0.15, 1, 160)
    assert crossing(leads, alpha=alpha, num_labels=200, earlier=Earlier(before, 0, alpha)) is not None
    num_passed = 0
    for seed in range(50):
        before, leads = rng.normal(size=60), rng.normal(size=30)
        earlier = Earlier(before, 0, 0.025)
        passed = chance_of_lead(before, num_folds=0, num_exchanges=1000, seed=seed) <= 0.025
        num_passed += passed or crossing(leads, alpha=0.025, num_labels=30, earlier=earlier, seed=seed) is not None
    assert num_passed <= 50 * 0.05 + 2 * np.sqrt(50 * 0.05)
