from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clapboard.errors import TrainingError
from clapboard.labels.label_space import label_space_of
from clapboard.suggest.head import ControlHead, Head
from training.evaluation.contenders import Draw, accuracies
from training.evaluation.fewshot import Plan, choose_test_fold, draws, few_shot, split_off, zero_shot_report
from training.evaluation.listed_clips import EmbeddedClips, ListedClip

LABELS = ("bell", "dog", "rain")
DIM = 16
PLAN = Plan(shots=(0, 1, 4), num_seeds=3, num_finetuned_seeds=3, test_fold=None, held_out_share=0.1)
METHODS = ["zero-shot", "centred zero-shot", "logistic regression", "prototypes", "our head"]


def clips_of(
    per_label: int = 40, *, group_size: int = 2, folds: int = 0, texts: Sequence[int] = (0, 1, 2), noise: float = 0.05
) -> EmbeddedClips:
    """Clips around one direction for each label; `texts` says at which direction each label's text lies."""
    rng = np.random.default_rng(3)
    clips, windows = [], []
    for label, name in enumerate(LABELS):
        for number in range(per_label):
            group = f"{name} {number // group_size}"
            fold = str(number // group_size % folds + 1) if folds else None
            clips.append(ListedClip(Path(f"{name}{number}.wav"), name, group, fold))
            window = np.eye(DIM)[label] + noise * rng.standard_normal(DIM)
            windows.append((window / np.linalg.norm(window)).astype(np.float32)[None])
    rows = 10 * np.eye(DIM, dtype=np.float32)[list(texts)]
    head = Head((ControlHead(np.zeros(DIM, np.float32), rows, np.zeros(3, np.float32)),))
    return EmbeddedClips(label_space_of(LABELS), head, tuple(clips), tuple(windows))


def as_it_was(draw: Draw) -> Draw:
    """A finetuning that changes nothing."""
    return draw


def sides(draw: Draw) -> list[set[str]]:
    return [{clip.group for clip in part.clips} for part in (draw.support, draw.held_out, draw.test)]


def only(clips: EmbeddedClips, wanted: npt.NDArray[np.bool_]) -> EmbeddedClips:
    return clips.take(np.flatnonzero(wanted))


# Draws


@pytest.mark.parametrize("test_fold", [None, "3"])
def test_a_group_never_lies_on_two_sides(test_fold: str | None) -> None:
    for seed in range(5):
        for draw in draws(clips_of(folds=4), replace(PLAN, test_fold=test_fold), seed):
            support, aside, test = sides(draw)
            assert not support & aside
            assert not support & test
            assert not aside & test
            assert len(aside) >= 3


def test_each_class_gives_so_many_labels_and_the_earlier_ones_stay() -> None:
    before: set[Path] = set()
    for draw in draws(clips_of(), replace(PLAN, shots=(0, 1, 4, 9)), seed=1):
        paths = {clip.path for clip in draw.support.clips}
        assert np.bincount(draw.support.labels, minlength=3).tolist() == [draw.shots] * 3
        assert before <= paths
        before = paths


def test_a_class_with_fewer_gives_all_that_it_has() -> None:
    clips = only(clips_of(), np.arange(120) < 90)  # rain has 10 clips, of 5 groups
    (draw,) = draws(clips, replace(PLAN, shots=(30,), held_out_share=0.0), seed=0)
    rain = int((draw.support.labels == 2).sum())
    assert 0 < rain < 10
    assert rain + int((draw.test.labels == 2).sum()) == 10


def test_a_test_fold_is_the_same_for_every_seed_and_all_of_it() -> None:
    clips = clips_of(folds=4)
    plan = replace(PLAN, test_fold="2", shots=(2,))
    (first,), (second,) = (list(draws(clips, plan, seed)) for seed in (0, 1))
    assert [clip.path for clip in first.test.clips] == [clip.path for clip in second.test.clips]
    assert {clip.fold for clip in first.test.clips} == {"2"}
    assert len(first.test.clips) == 30
    assert {clip.path for clip in first.support.clips} != {clip.path for clip in second.support.clips}


def test_a_group_that_reaches_into_the_test_fold_is_not_learnt_from() -> None:
    clips = clips_of(folds=2)
    torn = replace(clips, clips=tuple(replace(clip, group=f"{clip.group[:4]}") for clip in clips.clips))
    with pytest.raises(TrainingError, match="Nothing is left to learn from: groups stay together"):
        next(draws(torn, replace(PLAN, test_fold="1"), 0))


def test_without_folds_each_seed_halves_the_groups() -> None:
    tested = []
    for seed in range(4):
        draw = next(draws(clips_of(), PLAN, seed))
        assert np.bincount(draw.test.labels).tolist() == [20, 20, 20]
        tested.append(frozenset(sides(draw)[2]))
    assert len(set(tested)) == 4


def test_one_group_can_not_be_halved() -> None:
    clips = clips_of()
    together = replace(clips, clips=tuple(replace(clip, group="all") for clip in clips.clips))
    with pytest.raises(TrainingError, match="Nothing is left to test on"):
        next(draws(together, PLAN, 0))


def test_what_is_split_off_is_near_its_share_and_leaves_every_label_a_group() -> None:
    clips = clips_of(36, group_size=4)
    for seed in range(10):
        taken = split_off(clips, 0.3, np.random.default_rng(seed))
        assert np.bincount(clips.labels[taken]).tolist() == [12, 12, 12]
    rare = only(clips, (clips.labels != 2) | (clips.groups == "rain 0"))
    for seed in range(10):
        taken = split_off(rare, 0.5, np.random.default_rng(seed))
        assert not taken[rare.labels == 2].any()


def test_the_last_of_several_folds_is_tested_on_unless_one_is_named() -> None:
    clips = [ListedClip(Path("a"), "a", "a", fold) for fold in ("1", "10", "9")]
    assert choose_test_fold(clips, None) == "10"
    assert choose_test_fold(clips, "9") == "9"
    assert choose_test_fold(clips[:1], None) is None
    assert choose_test_fold([replace(clips[0], fold=None)], None) is None


def test_a_fold_that_can_not_be_tested_on_is_one_sentence() -> None:
    clips = [ListedClip(Path("a"), "a", "a", fold) for fold in ("1", "10", "9")]
    with pytest.raises(TrainingError, match=r"Fold 4 doesn't exist: choose from 1, 9, 10\."):
        choose_test_fold(clips, "4")
    with pytest.raises(TrainingError, match="Fold 4 doesn't exist: the manifest names no folds"):
        choose_test_fold([replace(clips[0], fold=None)], "4")
    with pytest.raises(TrainingError, match="Fold 1 is the only one"):
        choose_test_fold(clips[:1], "1")


# Methods


def test_every_method_is_right_where_texts_and_labels_agree() -> None:
    draw = list(draws(clips_of(), PLAN, 0))[-1]
    assert accuracies(draw, None) == dict.fromkeys([*METHODS, "ladder"], 1.0)


def test_texts_are_wrong_where_they_name_other_classes_and_labels_mend_it() -> None:
    figures = accuracies(list(draws(clips_of(texts=(1, 2, 0)), replace(PLAN, shots=(7,)), 0))[-1], None)
    assert figures["zero-shot"] == figures["centred zero-shot"] == 0.0
    assert figures["logistic regression"] == figures["prototypes"] == 1.0
    assert figures["our head"] == figures["ladder"] > 0.9


def test_centring_mends_a_direction_that_all_clips_share() -> None:
    clips = clips_of()
    shared = np.eye(DIM, dtype=np.float32)[0]  # towards the bell's text
    moved = [(window + 3 * shared) / np.linalg.norm(window + 3 * shared) for window in clips.windows]
    figures = accuracies(next(draws(replace(clips, windows=tuple(moved)), PLAN, 0)), None)
    assert figures["zero-shot"] == pytest.approx(1 / 3)
    assert figures["centred zero-shot"] == 1.0


def test_without_labels_the_texts_are_served() -> None:
    figures = accuracies(next(draws(clips_of(noise=0.5), PLAN, 0)), None)
    assert sorted(figures) == ["centred zero-shot", "ladder", "zero-shot"]
    assert figures["ladder"] == figures["zero-shot"] < 1.0


def test_a_class_without_support_is_never_called_by_what_knows_no_texts() -> None:
    draw = list(draws(clips_of(), PLAN, 0))[-1]
    for known, right in ((1, 1 / 3), (2, 2 / 3)):
        partly = replace(draw, support=only(draw.support, draw.support.labels < known))
        figures = accuracies(partly, None)
        assert figures["logistic regression"] == pytest.approx(right)
        assert figures["prototypes"] == pytest.approx(right)
        assert figures["our head"] > right


def test_a_finetuned_encoder_is_served_if_the_clips_that_were_held_out_prove_it() -> None:
    poor, good = clips_of(noise=1.0), clips_of(noise=0.05)
    plan = replace(PLAN, shots=(8,), held_out_share=0.4)
    (draw,) = draws(poor, plan, 0)
    (better,) = draws(good, plan, 0)
    figures = accuracies(draw, lambda _: better)
    assert figures["our head"] < 0.9
    assert figures["ladder"] == figures["our finetuning"] == 1.0

    figures = accuracies(better, lambda _: draw)
    assert figures["ladder"] == figures["our head"] == 1.0
    assert figures["our finetuning"] < 0.9

    unjudged = replace(draw, held_out=only(draw.held_out, np.zeros(len(draw.held_out.clips), bool)))
    figures = accuracies(unjudged, lambda _: better)
    assert figures["ladder"] == figures["our head"] < figures["our finetuning"]


def test_with_too_few_labels_nothing_is_finetuned() -> None:
    def refuse(_: Draw) -> Draw:
        raise AssertionError("finetuning was started")

    figures = accuracies(list(draws(clips_of(), PLAN, 0))[-1], refuse)
    assert sorted(figures) == sorted([*METHODS, "ladder"])


# The curve


def test_points_are_mean_worst_and_paired_differences() -> None:
    clips, plan = clips_of(noise=0.6), replace(PLAN, shots=(0, 2))
    done: list[int] = []
    points = few_shot(clips, plan, as_it_was, on_draw=lambda: done.append(1))
    assert len(done) == 6
    assert [(point.shots, point.method) for point in points[:2]] == [(0, "zero-shot"), (0, "centred zero-shot")]
    assert len(points) == 2 * 7
    found = {(point.shots, point.method): point for point in points}
    expected = [[accuracies(draw, as_it_was) for draw in draws(clips, plan, seed)][1] for seed in range(3)]
    own = np.array([figures["prototypes"] for figures in expected])
    lead = own - [figures["zero-shot"] for figures in expected]
    point = found[2, "prototypes"]
    assert point.num_seeds == 3
    assert (point.mean, point.worst) == pytest.approx((own.mean(), own.min()))
    assert (point.difference, point.worst_difference) == pytest.approx((lead.mean(), lead.min()))
    assert found[2, "zero-shot"].difference == found[2, "zero-shot"].worst_difference == 0.0
    for method in ("logistic regression", "our head", "our finetuning"):
        assert (found[0, method].num_seeds, found[0, method].mean, found[0, method].difference) == (0, None, None)


def test_finetuning_and_what_rests_on_it_are_known_for_the_first_seeds_alone() -> None:
    plan = replace(PLAN, shots=(4, 8), num_finetuned_seeds=2)
    found = {(point.shots, point.method): point.num_seeds for point in few_shot(clips_of(), plan, as_it_was)}
    assert found[4, "our finetuning"] == 0
    assert found[8, "our finetuning"] == found[8, "ladder"] == 2
    assert found[4, "ladder"] == found[8, "our head"] == 3


def test_the_zero_shot_report_counts_every_clip() -> None:
    found = zero_shot_report(clips_of(texts=(0, 2, 1)))
    assert (found.num_clips, found.labels, found.recall) == (120, LABELS, (1.0, 0.0, 0.0))
    assert found.accuracy == pytest.approx(1 / 3)
    with pytest.raises(TrainingError, match="None of the clips can be decoded"):
        zero_shot_report(clips_of(0))
