from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import label_space_of
from training.finetuning.labelled import LabelledClip, Targets, balanced_order, count_labels, split_clips, targets_of

TWO_CONTROLS = """
<View>
  <Audio name="audio" value="$audio"/>
  <Choices name="kind" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
  <Choices name="traits" toName="audio" choice="multiple"><Choice value="loud"/><Choice value="near"/></Choices>
</View>
"""


def clip(number: int, *labels: str, group: str = "", split: str = "train", control: str = "label") -> LabelledClip:
    path = Path(f"{number:04}.wav")
    return LabelledClip(path, group or str(number), {control: labels}, split)  # type: ignore[arg-type]


def balanced(num_labels: int = 4, per_label: int = 20, clips_of_one: int = 2) -> list[LabelledClip]:
    return [
        clip(label * per_label + number, f"kind {label}", group=f"{label}-{number // clips_of_one}")
        for label in range(num_labels)
        for number in range(per_label)
    ]


# The split


@pytest.mark.parametrize("seed", range(5))
def test_no_recording_lies_on_both_sides_and_every_label_gets_its_share(seed: int) -> None:
    found = split_clips(balanced(), validation_share=0.2, seed=seed)
    groups = {split: {c.group for c in found if c.split == split} for split in ("train", "validation")}
    assert not groups["train"] & groups["validation"]
    validation = Counter(c.targets["label"][0] for c in found if c.split == "validation")
    assert validation == {f"kind {label}": 4 for label in range(4)}


def test_the_split_follows_the_seed_and_not_the_order_of_the_clips() -> None:
    clips = balanced()
    splits = {c.path: c.split for c in split_clips(clips, seed=1)}
    assert {c.path: c.split for c in split_clips(clips[::-1], seed=1)} == splits
    assert {c.path: c.split for c in split_clips(clips, seed=2)} != splits


def test_test_clips_stay_where_they_are_and_take_their_recordings_with_them() -> None:
    clips = [replace(c, split="test") if index % 10 == 0 else c for index, c in enumerate(balanced())]
    found = split_clips(clips)
    assert [c for c in found if c.split == "test"] == [c for c in clips if c.split == "test"]
    tested = {c.group for c in clips if c.split == "test"}
    assert not tested & {c.group for c in found if c.split != "test"}
    assert len(found) == 80 - len(tested)


def test_a_labels_only_recording_is_learnt_from() -> None:
    clips = [*balanced(2), *(clip(900 + number, "rare", group="only one") for number in range(10))]
    for seed in range(5):
        assert {c.split for c in split_clips(clips, seed=seed) if c.targets["label"] == ("rare",)} == {"train"}


def test_unequal_recordings_come_near_the_share() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 12, 40)
    clips = [
        clip(1000 * group + number, f"kind {group % 3}", group=str(group))
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    found = split_clips(clips, validation_share=0.25)
    for label in range(3):
        of_label = [c.split for c in found if c.targets["label"] == (f"kind {label}",)]
        assert 0.18 < of_label.count("validation") / len(of_label) < 0.32


def test_nothing_to_split_is_no_error() -> None:
    assert split_clips([]) == []


# Targets


def test_answers_become_targets_where_they_fit_the_control() -> None:
    space = parse_label_config(TWO_CONTROLS)
    kind, traits = space.predicted
    clips = [
        LabelledClip(Path("a"), "a", {"kind": ("rain",), "traits": ("near", "loud")}),
        LabelledClip(Path("b"), "b", {"traits": ()}),
        LabelledClip(Path("c"), "c", {"kind": ("dog", "rain")}),
        LabelledClip(Path("d"), "d", {"kind": ("cat",), "traits": ("loud",)}, "validation"),
    ]
    kinds, several = targets_of(kind, clips), targets_of(traits, clips)
    assert kinds.known.tolist() == [True, False, False, False]
    assert kinds.truth[0].tolist() == [False, True]
    assert several.known.tolist() == [True, True, False, True]
    assert several.truth.tolist() == [[True, True], [False, False], [False, False], [True, False]]
    counts = count_labels(space, clips)
    assert counts.unusable == 2
    assert counts.answers == {
        "train": {"kind": 1, "traits": 2},
        "validation": {"kind": 0, "traits": 1},
        "test": {"kind": 0, "traits": 0},
    }
    assert counts.labels["train"] == {"kind": {"dog": 0, "rain": 1}, "traits": {"loud": 1, "near": 1}}
    assert counts.labels["validation"]["traits"] == {"loud": 1, "near": 0}


# The order


def order_of(labels: list[int], *, weights: list[float] | None = None, seed: int = 0) -> list[int]:
    truth = np.eye(max(labels) + 1, dtype=bool)[labels]
    targets = [Targets(truth, np.ones(len(labels), bool))]
    rng = np.random.default_rng(seed)
    return balanced_order(targets, np.array(weights or [1.0] * len(labels)), rng).tolist()


def test_equal_labels_are_heard_exactly_once() -> None:
    for seed in range(20):
        assert sorted(order_of([0, 1, 2] * 7, seed=seed)) == list(range(21))
    assert order_of([0, 1, 2] * 7, seed=1) != order_of([0, 1, 2] * 7, seed=2)


def test_rare_labels_are_heard_as_often_as_frequent_ones() -> None:
    labels = [0] * 90 + [1] * 10
    heard = Counter(labels[index] for index in order_of(labels))
    assert heard == {0: 50, 1: 50}


def test_a_clips_weight_says_how_often_it_is_heard() -> None:
    heard = Counter(order_of([0] * 8, weights=[1, 1, 1, 1, 1, 1, 1, 0.0]))
    assert 7 not in heard
    assert sum(heard.values()) == 8
    assert Counter(order_of([0] * 4, weights=[3, 1 / 3, 1 / 3, 1 / 3]))[0] == 3


def test_clips_without_any_label_are_a_class_of_their_own() -> None:
    truth = np.zeros((40, 1), bool)
    truth[:4] = True
    order = balanced_order([Targets(truth, np.ones(40, bool))], np.ones(40), np.random.default_rng(0))
    assert (order < 4).sum() == 20


def test_a_label_space_without_labels_used_is_counted_as_such() -> None:
    assert count_labels(label_space_of(["a", "b"]), []).labels["train"] == {"label": {"a": 0, "b": 0}}
