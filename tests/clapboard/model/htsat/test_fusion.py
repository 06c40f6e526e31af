from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from transformers import ClapAudioConfig
from transformers.models.clap.modeling_clap import ClapAudioPatchEmbed

from clapboard.model.htsat.fusion import Fusion
from tests.support.grids import numbered

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def patch_embed() -> ClapAudioPatchEmbed:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return ClapAudioPatchEmbed(
            ClapAudioConfig(enable_fusion=True, fusion_type="aff_2d", patch_embeds_hidden_size=16)
        )


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_the_reference_in_double_precision(training: bool) -> None:
    ours = patch_embed().train(training)
    theirs = deepcopy(ours).double()
    random = torch.Generator().manual_seed(6)
    images = torch.randn(3, 4, 256, 256, generator=random)
    direction = torch.randn(3, 16, 64, 64, generator=random)
    inputs, expected_inputs = images.clone().requires_grad_(), images.double().requires_grad_()

    places = numbered(64, 8)[:, 0, :, 0].long()  # [G, S]
    whole = ours.proj(inputs[:, :1]).flatten(2)  # [B, C, 64 · 64]
    tokens = whole[..., places].permute(2, 0, 3, 1)  # [G, B, S, C]
    fused = Fusion.of(ours, group_side=8)(tokens, inputs[:, 1:].flatten(0, 1))
    (fused * direction.flatten(2)[..., places].permute(2, 0, 3, 1)).sum().backward()

    local = theirs.mel_conv2d(expected_inputs[:, 1:].reshape(9, 1, 256, 256)).unflatten(0, (3, 3))  # [B, 3, C, 64, 21]
    local = torch.nn.functional.pad(torch.cat([*local.unbind(1)], dim=-1), (0, 1))
    expected = theirs.fusion_model(theirs.proj(expected_inputs[:, :1]), local)
    (expected * direction).sum().backward()

    torch.testing.assert_close(fused.permute(1, 3, 0, 2).double(), expected.flatten(2)[..., places], atol=1e-4, rtol=0)
    assert inputs.grad is not None
    assert expected_inputs.grad is not None
    pairs = {"images": (inputs.grad, expected_inputs.grad)}
    pairs |= {
        name: (found.grad, wanted.grad)
        for (name, found), wanted in zip(ours.named_parameters(), theirs.parameters(), strict=True)
        if wanted.grad is not None
    }
    assert len(pairs) == 1 + len([*ours.mel_conv2d.parameters(), *ours.proj.parameters()]) + len(
        [*ours.fusion_model.parameters()]
    )
    for name, (found, wanted) in pairs.items():
        # A bias before a BatchNorm that trains has no gradient but what rounding leaves.
        assert (found.double() - wanted).norm() <= (1e-4 * wanted.norm() if wanted.norm() > 1e-6 else 0.1), name
