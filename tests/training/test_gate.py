from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score

from training.evaluate import Truth
from training.gate import Rules, Trial, Verdict, _average_precision, judge

Scores = npt.NDArray[np.float32]
LABELS = ("dog", "rain", "clock")


def truth_of(num_clips: int = 60) -> Truth:
    return np.eye(3, dtype=bool)[np.arange(num_clips) % 3]


def right_on(truth: Truth, right: npt.NDArray[np.bool_]) -> Scores:
    """Scores that call the right label on those clips, and the next one elsewhere."""
    called = (truth.argmax(axis=1) + ~right) % truth.shape[1]
    return np.where(np.eye(truth.shape[1], dtype=bool)[called], 0.8, 0.1).astype(np.float32)


def trial(truth: Truth, candidate: Scores, in_service: Scores, zero_shot: Scores, *, clips_of_one: int = 1) -> Trial:
    groups = [f"recording {index // clips_of_one}" for index in range(len(truth))]
    return Trial("sound", LABELS[: truth.shape[1]], False, groups, truth, candidate, in_service, zero_shot)


def share(num_clips: int, right: float) -> npt.NDArray[np.bool_]:
    """Which clips are right: so large a share of them, spread evenly over the labels."""
    return np.arange(num_clips) // 3 < right * num_clips / 3


def test_a_clear_win_is_promoted() -> None:
    truth = truth_of()
    before = right_on(truth, share(60, 0.5))
    verdict = judge([trial(truth, right_on(truth, share(60, 0.9)), before, before)])
    assert verdict.promote
    assert verdict.reason.startswith("Promoted: it is better than the version in service by 0.400 (at least 0.")
    for difference in verdict.differences:
        assert difference.estimate == pytest.approx(0.4)
        assert 0.2 < difference.lower_bound < 0.4
    assert (verdict.num_clips, verdict.num_recordings) == (60, 60)
    (reports,) = verdict.reports
    assert (reports.candidate.accuracy, reports.in_service.accuracy) == (pytest.approx(0.9), pytest.approx(0.5))


@pytest.mark.parametrize("right", [0.0, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_identical_predictions_are_never_promoted(right: float, seed: int) -> None:
    truth = truth_of()
    scores = right_on(truth, share(60, right))
    verdict = judge([trial(truth, scores, scores, scores)], Rules(seed=seed))
    assert not verdict.promote
    assert verdict.reason == "Not promoted: " + {
        1.0: "all 60 of 60 test clips were right before, by the version in service and zero-shot, so nothing can be "
        "better.",
    }.get(
        right,
        f"it isn't surely better than the version in service and zero-shot ({60 * right:.0f} of 60 test clips right, "
        "as before).",
    )


def test_a_candidate_that_is_worse_than_a_flawless_version_is_told_its_own_count() -> None:
    truth = truth_of()
    flawless = right_on(truth, share(60, 1.0))
    verdict = judge([trial(truth, right_on(truth, share(60, 0.9)), flawless, right_on(truth, share(60, 0.5)))])
    assert verdict.reason == (
        "Not promoted: all 60 of 60 test clips were right before, by the version in service; by the candidate 54 are."
    )


def test_better_than_the_version_in_service_but_not_than_zero_shot_is_not_promoted() -> None:
    truth = truth_of()
    good, bad = right_on(truth, share(60, 0.9)), right_on(truth, share(60, 0.5))
    verdict = judge([trial(truth, good, bad, good)])
    assert not verdict.promote
    assert "isn't surely better than zero-shot (" in verdict.reason
    verdict = judge([trial(truth, good, good, bad)])
    assert not verdict.promote
    assert "isn't surely better than the version in service (" in verdict.reason


def test_a_class_that_collapses_blocks_a_win_on_the_whole() -> None:
    truth = truth_of(90)
    clocks = truth[:, 2]
    before = right_on(truth, clocks | share(90, 0.2))
    candidate = right_on(truth, ~clocks | share(90, 0.7))
    verdict = judge([trial(truth, candidate, before, before)])
    assert all(difference.lower_bound > 0 for difference in verdict.differences)
    assert not verdict.promote
    assert "“clock” falls from 1.00 to 0.70, more than the 0.2" in verdict.reason
    assert verdict.changes[0].label == "clock"
    assert judge([trial(truth, candidate, before, before)], Rules(max_fall=0.31)).promote


def test_a_class_with_few_test_clips_is_not_looked_at_by_itself() -> None:
    truth = np.eye(3, dtype=bool)[np.array([0, 1] * 28 + [2] * 4)]
    clocks = truth[:, 2]
    before, candidate = right_on(truth, clocks), right_on(truth, ~clocks)
    verdict = judge([trial(truth, candidate, before, before)])
    assert verdict.promote
    assert {change.label for change in verdict.changes} == {"dog", "rain"}


@pytest.mark.parametrize(("num_clips", "clips_of_one"), [(9, 1), (40, 10), (0, 1)])
def test_too_few_test_clips_or_recordings_are_said_to_be_too_few(num_clips: int, clips_of_one: int) -> None:
    truth = truth_of(num_clips)
    win, loss = right_on(truth, share(num_clips, 1)), right_on(truth, share(num_clips, 0))
    verdict = judge([trial(truth, win, loss, loss, clips_of_one=clips_of_one)])
    assert not verdict.promote
    assert f"{num_clips} test clips of {num_clips // clips_of_one} recordings are too few" in verdict.reason
    assert "At least 10 clips of 5 recordings are needed: label more of the held-out tasks." in verdict.reason
    assert verdict.differences == ()


def test_the_lower_bound_is_that_of_a_binomial_where_it_can_be_worked_out() -> None:
    """Of 40 clips 10 are won and none is lost: the lead is Binomial(40, ¼) / 40, whose 5 % quantile is 6/40."""
    truth = truth_of(40)
    none = right_on(truth, np.zeros(40, bool))
    verdict = judge([trial(truth, right_on(truth, np.arange(40) < 10), none, none)])
    assert [difference.lower_bound for difference in verdict.differences] == [pytest.approx(6 / 40)] * 2


def test_clips_of_one_recording_are_drawn_together() -> None:
    """4 of 12 recordings are won as a whole: Binomial(12, ⅓) / 12, whose 5 % quantile is 1/12; of clips apart, more."""
    truth = truth_of(120)
    none = right_on(truth, np.zeros(120, bool))
    candidate = right_on(truth, np.arange(120) < 40)
    together = judge([trial(truth, candidate, none, none, clips_of_one=10)])
    apart = judge([trial(truth, candidate, none, none)])
    assert together.differences[0].lower_bound == pytest.approx(1 / 12)
    assert apart.differences[0].lower_bound == pytest.approx(31 / 120, abs=1.01 / 120)


def test_clips_that_count_twice_are_as_good_as_two_clips() -> None:
    rng = np.random.default_rng(3)
    scores, truth = rng.random(30).round(1).astype(np.float32), rng.random(30) < 0.4
    times = rng.integers(0, 4, (5, 30)).astype(float)
    found = _average_precision(scores, truth, times)
    for value, counts in zip(found, times.astype(int), strict=True):
        expected = average_precision_score(np.repeat(truth, counts), np.repeat(scores, counts))
        assert value == pytest.approx(expected)


def test_labels_that_dont_exclude_each_other_are_judged_by_map() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random((80, 2)) < 0.4
    bad = rng.random((80, 2)).astype(np.float32)
    good = (0.5 * bad + 0.5 * truth).astype(np.float32)
    one = replace(trial(truth, good, bad, bad), multiple=True)
    verdict = judge([one])
    assert verdict.promote
    assert verdict.differences[0].estimate == pytest.approx(
        average_precision_score(truth, good) - average_precision_score(truth, bad)
    )
    assert [change.after for change in verdict.changes] == [1, 1]
    assert not judge([replace(one, candidate=bad)]).promote


def test_a_win_on_one_control_makes_up_for_a_loss_on_another_with_fewer_clips() -> None:
    large, small = truth_of(60), truth_of(12)
    win = trial(large, right_on(large, share(60, 1)), *[right_on(large, share(60, 0.2))] * 2)
    loss = trial(small, right_on(small, share(12, 0.75)), *[right_on(small, share(12, 1))] * 2)
    verdict = judge([win, replace(loss, control="place")])
    assert verdict.differences[0].estimate == pytest.approx((60 * 0.8 - 12 * 0.25) / 72)
    assert verdict.num_clips == 60
    assert verdict.num_recordings == 60
    assert {change.control for change in verdict.changes} == {"sound"}


def test_a_verdict_survives_json() -> None:
    truth = truth_of()
    before = right_on(truth, share(60, 0.5))
    multiple = replace(trial(truth, before, before, before), multiple=True, control="others")
    verdict = judge([trial(truth, right_on(truth, share(60, 0.9)), before, before), multiple])
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_the_same_seed_gives_the_same_verdict() -> None:
    truth = truth_of()
    rng = np.random.default_rng(0)
    given = trial(truth, *(right_on(truth, rng.random(60) < right) for right in (0.7, 0.6, 0.5)))
    assert judge([given]) == judge([given])
    assert judge([given]).differences != judge([given], Rules(seed=1)).differences
