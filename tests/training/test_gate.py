from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score

from training.evaluate import Truth
from training.gate import Rules, Trial, judge
from training.significance import allowed_chance
from training.verdict import Verdict

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
    assert verdict.reason.startswith(
        "Promoted: it is better than the version in service by 0.400 and than zero-shot by 0.400 (by chance: 0.00002, "
        "allowed 0.025), and no class falls"
    )
    for difference in verdict.differences:
        assert difference.estimate == pytest.approx(0.4)
        assert difference.nearness > 0
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
    assert all(difference.chance < 0.025 for difference in verdict.differences)
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
    assert "At least 10 clips of 6 recordings are needed: label more of the held-out tasks." in verdict.reason
    assert verdict.differences == ()


def test_clips_of_one_recording_are_one_proof() -> None:
    """Five of 12 recordings are won as a whole and none is lost: by chance 2⁻⁵. Of 50 clips apart: never."""
    truth = truth_of(120)
    none = right_on(truth, np.zeros(120, bool))
    candidate = right_on(truth, np.arange(120) < 50)
    together = judge([trial(truth, candidate, none, none, clips_of_one=10)])
    apart = judge([trial(truth, candidate, none, none)])
    assert together.differences[0].chance == pytest.approx(2**-5, rel=0.1)
    assert not together.promote
    assert apart.differences[0].chance < 1e-4
    assert apart.promote


def test_nearer_scores_without_more_right_answers_are_not_promoted() -> None:
    truth = truth_of()
    before = right_on(truth, share(60, 0.7))
    bolder = np.where(before > 0.5, 0.85, 0.075).astype(np.float32)
    verdict = judge([trial(truth, bolder, before, before)])
    assert not verdict.promote
    assert "isn't surely better" in verdict.reason


def test_a_candidate_judged_on_the_same_evidence_as_others_has_to_be_the_surer() -> None:
    truth = truth_of()
    before = right_on(truth, share(60, 0.6))
    candidate = right_on(truth, share(60, 0.6) | (np.arange(60) >= 54))  # 6 clips more: by chance 2⁻⁶
    contenders = trial(truth, candidate, before, before)
    first = judge([contenders])
    assert first.promote
    assert "No candidate was judged on the same evidence before, so at most 0.025 is allowed" in first.explanation
    (looked,) = first.looks
    second = judge([contenders], earlier=[looked.recordings, ["others"]])
    assert second.looks[0].number == 2
    assert not second.promote
    assert "1 candidate was judged on the same evidence before, so at most 0.0083 is allowed" in second.explanation
    half_new = judge([contenders], earlier=[looked.recordings[:29]])
    assert half_new.looks[0].number == 1


def test_what_all_candidates_together_may_be_promoted_by_mistake_is_bounded() -> None:
    assert sum(allowed_chance(0.05, number) for number in range(1, 1000)) == pytest.approx(0.05, rel=0.01)


def test_cross_fitted_clips_count_beside_held_out_ones_and_need_a_larger_lead() -> None:
    truth = truth_of()
    before = right_on(truth, share(60, 0.6))
    candidate = right_on(truth, share(60, 0.6) | (np.arange(60) >= 50))
    contenders = trial(truth, candidate, before, before)
    fitted = replace(contenders, folds=[0] * 20 + [1, 2, 3, 1] * 10)
    alone, both = judge([contenders]), judge([fitted])
    assert (both.num_held_out, both.num_folds, both.looks[0].look) == (20, 3, "all")
    assert both.differences[0].estimate == alone.differences[0].estimate
    assert both.differences[0].chance > 2 * alone.differences[0].chance
    assert "20 held-out clips, which the candidate itself answered, and on 40 labelled clips" in both.explanation
    assert not judge([replace(fitted, folds=[0] * 9 + [1, 2, 3] * 17)]).looks  # too few are held out


def test_after_twenty_candidates_that_are_no_better_hardly_any_was_promoted() -> None:
    rng = np.random.default_rng(0)
    truth, rules = truth_of(), Rules(num_exchanges=2000)
    none = right_on(truth, share(60, 0.0))
    num_promoted = 0
    for _ in range(30):
        before = right_on(truth, rng.random(60) < 0.7)
        seen: list[tuple[str, ...]] = []
        for _ in range(20):
            candidate = right_on(truth, rng.random(60) < 0.7)
            verdict = judge([trial(truth, candidate, before, none)], rules, earlier=seen)
            seen += [look.recordings for look in verdict.looks]
            num_promoted += verdict.promote
    assert num_promoted <= 4  # in 30 series; at most 1.5 are expected


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
    assert [change.after for change in verdict.changes] == pytest.approx([1, 1])
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
