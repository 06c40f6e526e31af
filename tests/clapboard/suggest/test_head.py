"""Heads by hand: logits, scores, names, bytes."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import label_space_of
from clapboard.suggest.head import ControlHead, Head, control_scores, scores_of_all, zero_shot_head

X, Y, NEUTRAL = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]
CONFIG = """
<View><Audio name="audio" value="$audio"/>
<Choices name="one" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
<Choices name="many" toName="audio" choice="multiple"><Choice value="near"/></Choices>
<TextArea name="text" toName="audio"/></View>
"""
SPACE = parse_label_config(CONFIG)


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def control_head(center: list[float], weights: list[list[float]], bias: list[float]) -> ControlHead:
    return ControlHead(array(*[center])[0], array(*weights), array(*[bias])[0])


def test_logits_are_those_of_the_centred_unit_norm_embedding() -> None:
    head = control_head([0.5, 0.0], [[2.0, 0.0], [0.0, 3.0]], [0.5, -1.0])
    # (1, 0) − (0.5, 0) is (1, 0) as a unit vector; (0.5, 0.5) − (0.5, 0) is (0, 1)
    assert head.logits(array(X, [0.5, 0.5])) == pytest.approx(np.array([[2.5, -1.0], [0.5, 2.0]]))


def test_an_embedding_that_is_the_centre_itself_has_the_bias_alone() -> None:
    logits = control_head(X, [X, Y], [0.25, -0.25]).logits(array(X))
    assert logits == pytest.approx(np.array([[0.25, -0.25]]))


def test_zero_shot_is_the_scaled_cosine_and_weighs_several_choices_against_the_neutral_texts() -> None:
    head = zero_shot_head(SPACE, array(X, Y, Y, NEUTRAL), 10.0)
    one, many = head.controls
    assert one.logits(array(X)) == pytest.approx(np.array([[10.0, 0.0]]))
    assert many.logits(array(X)) == pytest.approx(np.array([[-6.0]]))
    assert many.logits(array(Y)) == pytest.approx(np.array([[2.0]]))


def test_scores_exclude_each_other_only_where_one_label_is_chosen() -> None:
    head = zero_shot_head(SPACE, array(X, Y, Y, [0.0, 0.0]), math.log(3))
    one, many = (
        control_scores(control, part, array(X, Y)) for control, part in zip(SPACE.predicted, head.controls, strict=True)
    )
    assert one == pytest.approx([0.5, 0.5])  # the mean of 3/4 and 1/4
    assert many == pytest.approx([0.75])  # the best window's


def test_a_head_has_the_same_name_whoever_made_it_and_another_for_any_other_number() -> None:
    head = Head((control_head(X, [X, Y], [0.0, 1.0]), control_head(Y, [X], [2.0])))
    read = Head.from_bytes(head.to_bytes())
    assert read.name == head.name == Head((*head.controls,)).name
    assert head.name.startswith("head-")
    assert len(head.name) == len("head-") + 8
    for part, again in zip(head.controls, read.controls, strict=True):
        for field in ("center", "weights", "bias"):
            assert np.array_equal(getattr(part, field), getattr(again, field))
    others = [
        Head((control_head(X, [X, Y], [0.0, 1.0 + 1e-6]), head.controls[1])),
        Head((control_head(Y, [X, Y], [0.0, 1.0]), head.controls[1])),
        Head((control_head(X, [Y, X], [0.0, 1.0]), head.controls[1])),
        Head((head.controls[1], head.controls[0])),
        Head(head.controls[:1]),
        Head(()),
    ]
    assert len({head.name, *(other.name for other in others)}) == 7


def test_bytes_that_hold_objects_are_refused() -> None:
    file = io.BytesIO()
    np.savez(file, center0=np.array([{}], dtype=object), weights0=X, bias0=X)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Head.from_bytes(file.getvalue())


def test_a_clips_scores_are_the_mean_over_its_windows() -> None:
    head = ControlHead(np.zeros(2, np.float32), 100 * np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    clips = [np.float32([[1, 0]]), np.float32([[1, 0], [0, 1]])]
    (control,) = label_space_of(["a", "b"]).predicted
    assert scores_of_all(control, head, clips) == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))
