from __future__ import annotations

import pytest
import torch

from training.pretraining.optimiser import Optimiser, OptimiserName, cosine_rate


def test_the_rate_rises_in_a_line_and_falls_by_a_cosine() -> None:
    rates = [cosine_rate(step, peak=2.0, warmup_steps=4, num_steps=104) for step in (0, 1, 3, 4, 54, 104)]
    assert rates == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.0, 0.0])


def test_a_run_that_is_all_warm_up_has_a_rate_too() -> None:
    assert [cosine_rate(step, peak=1.0, warmup_steps=2, num_steps=2) for step in range(2)] == [0.5, 1.0]


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_it_learns_and_goes_on_from_its_state(name: OptimiserName) -> None:
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))

    def steps(learner: torch.nn.Module, optimiser: Optimiser, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            learner.zero_grad()
            loss = (learner(inputs) - inputs[:, :1]).square().mean()
            loss.backward()
            optimiser.step(0.03, max_norm=1.0)
            losses.append(loss.item())
        return losses

    whole, first, second = model(), model(), model()
    losses = steps(whole, Optimiser(whole, name, 0.0), 30)
    assert losses[-1] < losses[0] / 2
    half = Optimiser(first, name, 0.0)
    steps(first, half, 15)
    second.load_state_dict(first.state_dict())
    rest = Optimiser(second, name, 0.0)
    rest.load_state_dict(half.state_dict())
    assert steps(second, rest, 15) == losses[15:]


def test_gradients_are_clipped_together_and_their_norm_is_told() -> None:
    learner = model()
    for parameter in learner.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    num = sum(parameter.numel() for parameter in learner.parameters())
    assert Optimiser(learner, "adamw", 0.0).step(0.0, max_norm=0.5) == pytest.approx(3 * num**0.5, rel=1e-5)
    assert sum(float(p.grad.square().sum()) for p in learner.parameters()) == pytest.approx(0.25, rel=1e-4)


def test_what_is_frozen_stays() -> None:
    learner = model()
    learner[0].requires_grad_(False)
    before = learner[0].weight.clone()
    learner(torch.ones(1, 6)).sum().backward()
    Optimiser(learner, "muon", 0.1).step(0.1, max_norm=1.0)
    assert torch.equal(learner[0].weight, before)
