"""What a frame counts, and what a head learns from frames."""

from __future__ import annotations

import numpy as np
import pytest

from clapboard.suggest.events.probabilities import frame_probabilities
from clapboard.suggest.head import ControlHead
from training.fit_frame_head import (
    EDGE_WEIGHT,
    MAX_FRAMES,
    NEGATIVE_WEIGHT,
    REGION_WEIGHT,
    LabelledSpan,
    drawn_frames,
    fit_frame_head,
    frame_targets,
    independent,
    learnt_limits,
)

AXES = np.eye(4, dtype=np.float32)
TEXTS = ControlHead(np.zeros(4, np.float32), 5 * AXES[[0, 1]], np.full(2, -2.0, np.float32))


def test_frames_inside_count_together_as_one_and_those_at_edges_and_outside_less() -> None:
    spans = [LabelledSpan(0, 1.0, 3.4), LabelledSpan(1, 8.1, 8.2)]
    targets, weights = frame_targets(spans, 10, 1.0, 2, unsettled=[LabelledSpan(0, 5.0, 6.0)])
    assert targets[:, 0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert targets[:, 1].tolist() == [0] * 8 + [1, 0]  # shorter than a frame
    assert weights[1:3, 0].sum() == pytest.approx(REGION_WEIGHT)
    assert weights[3, 0] == pytest.approx(NEGATIVE_WEIGHT * EDGE_WEIGHT)  # covered in part
    assert (weights[5, 0], weights[5, 1]) == (0.0, pytest.approx(NEGATIVE_WEIGHT))
    assert weights[8, 1] == pytest.approx(EDGE_WEIGHT * REGION_WEIGHT)


def test_a_draw_keeps_the_weight_of_what_it_leaves_out() -> None:
    targets = np.zeros((9_000, 1), np.float32)
    targets[:3_000] = 1.0
    weights = np.full((9_000, 1), 0.5, np.float32)
    rows, drawn = drawn_frames(targets, weights)
    assert len(rows) == len(set(rows.tolist())) == MAX_FRAMES
    for of_regions in (True, False):
        chosen = targets[rows, 0].astype(bool) == of_regions
        assert drawn[chosen].sum() == pytest.approx(0.5 * (targets[:, 0].astype(bool) == of_regions).sum(), rel=1e-4)


def test_a_head_learns_sounds_that_its_texts_do_not_tell_and_keeps_labels_without_regions() -> None:
    rng = np.random.default_rng(0)
    sounds = np.repeat(AXES[[2, 3]], 60, axis=0) + rng.normal(scale=0.1, size=(120, 4)).astype(np.float32)
    frames = sounds / np.linalg.norm(sounds, axis=1, keepdims=True)
    targets = np.zeros((120, 2), np.float32)
    targets[:60, 0] = 1.0
    fitted = fit_frame_head(TEXTS, frames, targets, np.ones_like(targets), frames)
    probabilities = frame_probabilities(AXES[[2, 3]], fitted, 2)
    assert probabilities[0, 0] > 0.8 > 0.2 > probabilities[1, 0]
    assert fitted.weights.shape == (2, 4)
    nothing = fit_frame_head(TEXTS, frames, np.zeros_like(targets), np.ones_like(targets), frames)
    assert np.allclose(frame_probabilities(AXES, nothing, 2), frame_probabilities(AXES, TEXTS, 2), atol=1e-6)


def test_texts_beside_everything_else_become_labels_on_their_own() -> None:
    beside = ControlHead(np.zeros(4, np.float32), 5 * AXES[[0, 1, 2]], np.zeros(3, np.float32))
    alone = independent(beside, 2)
    assert alone.logits(AXES[[2]]).tolist() == [[-5.0, -5.0]]
    assert independent(TEXTS, 2) is TEXTS


def test_enough_regions_teach_how_long_a_label_lasts() -> None:
    spans = [LabelledSpan(0, 0.0, 2.0 + number / 10) for number in range(10)] + [LabelledSpan(1, 0.0, 1.0)]
    limits = learnt_limits(spans, 2)
    shortest, longest, gap = limits[0].tolist()
    assert 0.9 < shortest < 1.1
    assert 5.4 < longest < 6.0
    assert np.isnan(gap)
    assert np.isnan(limits[1]).all()
