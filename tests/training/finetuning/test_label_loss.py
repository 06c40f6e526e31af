from __future__ import annotations

import pytest
import torch

from training.finetuning.label_loss import label_loss


def test_labels_that_exclude_each_other_cost_the_cross_entropy() -> None:
    logits, truth = torch.randn(5, 3), torch.eye(3)[[0, 2, 1, 1, 0]]
    expected = torch.nn.functional.cross_entropy(logits, truth, reduction="sum")
    torch.testing.assert_close(label_loss(logits, truth, torch.ones(5, 1), multiple=False), expected)


def test_labels_that_dont_exclude_each_other_cost_one_cross_entropy_each() -> None:
    logits, truth = torch.randn(5, 3), (torch.rand(5, 3) < 0.5).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / 3
    torch.testing.assert_close(label_loss(logits, truth, torch.ones(5, 1), multiple=True), expected)


@pytest.mark.parametrize("multiple", [False, True])
def test_what_isnt_known_costs_nothing_and_mixtures_cost_their_shares(multiple: bool) -> None:
    logits, truth = torch.randn(2, 3), torch.eye(3)[:2]
    first = label_loss(logits[:1], truth[:1], torch.ones(1, 1), multiple=multiple)
    half = label_loss(logits, truth * torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [0.0]]), multiple=multiple)
    torch.testing.assert_close(half, first)
    same = logits[:1].expand(2, -1)
    both = label_loss(same, truth, torch.ones(2, 1), multiple=multiple)
    mixed = label_loss(logits[:1], truth.mean(dim=0, keepdim=True), torch.ones(1, 1), multiple=multiple)
    torch.testing.assert_close(mixed, both / 2)
