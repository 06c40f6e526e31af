from __future__ import annotations

import math

import pytest
import torch

from training.pretraining.loss import affinity, contrastive_loss


def test_the_loss_of_two_orthogonal_pairs_is_what_the_formula_says() -> None:
    eye = torch.eye(2)
    scale = torch.tensor(3.0)
    loss = contrastive_loss(eye, eye, eye, scale, scale)
    assert loss.item() == pytest.approx(-math.log(math.e**3 / (math.e**3 + 1)), abs=1e-6)


def test_each_direction_has_its_own_temperature() -> None:
    eye = torch.eye(2)
    loss = contrastive_loss(eye, eye, eye, torch.tensor(3.0), torch.tensor(0.0))
    expected = (-math.log(math.e**3 / (math.e**3 + 1)) + math.log(2)) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_two_clips_of_one_kind_are_no_negatives_of_each_other() -> None:
    same = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # both clips and both captions lie at one point
    fit = torch.ones(2, 2)
    loss = contrastive_loss(same, same, fit, torch.tensor(10.0), torch.tensor(10.0))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)  # the entropy of the target: it can't be lower


def test_a_caption_that_fits_no_clip_is_a_negative_alone() -> None:
    audio = torch.tensor([[1.0, 0.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    fit = torch.tensor([[1.0, 0.0]])
    loss = contrastive_loss(audio, text, fit, torch.tensor(2.0), torch.tensor(2.0))
    audio_to_text = -math.log(math.e**2 / (math.e**2 + 1))
    assert loss.item() == pytest.approx(audio_to_text / 2, abs=1e-6)  # the other direction has one clip to choose from


def test_affinity_is_the_cosine_of_what_clip_and_caption_share() -> None:
    fit = affinity(
        [{"rain": 1.0}, {"rain": 0.6, "bell": 0.8}], [{"rain": 1.0}, {"bell": 1.0}, {"rain": 3.0, "bell": 4.0}]
    )
    expected = torch.tensor([[1.0, 0.0, 0.6], [0.6, 0.8, 1.0]])
    assert torch.allclose(fit, expected, atol=1e-6)


def test_the_gradient_pulls_a_pair_together() -> None:
    audio = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.2, 1.0]]), dim=1).requires_grad_()
    text = torch.eye(2)
    contrastive_loss(audio, text, torch.eye(2), torch.tensor(5.0), torch.tensor(5.0)).backward()
    assert audio.grad is not None
    assert audio.grad[0, 0] < 0 < audio.grad[0, 1]
