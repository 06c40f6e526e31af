from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import ClapAudioConfig, ClapModel
from transformers.models.clap.modeling_clap import ClapAudioEncoder

from clapboard.errors import ModelError
from clapboard.model.checkpoints import checkpoint_folder
from clapboard.model.htsat import Htsat
from clapboard.model.htsat.engines import ReferenceTower

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FUSION = {"enable_fusion": True, "fusion_type": "aff_2d"}
BASE = {
    "patch_embeds_hidden_size": 128,
    "depths": [2, 2, 12, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "hidden_size": 1024,
}
NARROW = {"patch_embeds_hidden_size": 32, "num_attention_heads": [1, 2, 4, 8], "hidden_size": 256}
SHAPES: dict[str, dict[str, Any]] = {
    "narrow": NARROW,
    "narrow, fused": NARROW | FUSION,
    "narrow, deep": NARROW | {"depths": BASE["depths"]},
    "tiny": {},
    "tiny, fused": FUSION,
    "base": BASE,
    "base, fused": BASE | FUSION,
}


def shapes(*names: str) -> list[Any]:
    """Parameters of a test: the published sizes, `tiny` and `base`, are for `pytest --real-size`."""
    return [pytest.param(name, marks=[] if "narrow" in name else [pytest.mark.real_size]) for name in names]


@cache
def reference(shape: str) -> ClapAudioEncoder:
    """A tower of that shape with random weights, among them those that start out as zeros or ones."""
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        tower = ClapAudioEncoder(ClapAudioConfig(**SHAPES[shape])).eval()
        for name, parameter in tower.named_parameters():
            if name.endswith("bias_table"):
                torch.nn.init.normal_(parameter)
            elif parameter.ndim > 1:
                torch.nn.init.xavier_normal_(parameter)
            else:
                parameter.data.add_(0.2 * torch.randn(parameter.shape))
        for module in tower.patch_embed.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        tower.batch_norm.running_mean.normal_(-40, 5)
        tower.batch_norm.running_var.uniform_(200, 600)
    return tower


def without_dropout(tower: ClapAudioEncoder) -> ClapAudioEncoder:
    """A copy in training mode, all but its dropout."""
    copy = deepcopy(tower).train()
    for module in copy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    return copy


def features(num_windows: int = 3) -> torch.Tensor:
    return torch.randn(num_windows, 1001, 64, generator=torch.Generator().manual_seed(1)) * 15 - 40


def four_mels(num_clips: int = 3) -> torch.Tensor:
    return torch.randn(num_clips, 4, 1001, 64, generator=torch.Generator().manual_seed(4)) * 15 - 40


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The length of the difference, relative to that of what is expected; the worst of the rows."""
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).detach().max())


@pytest.mark.parametrize("shape", shapes(*SHAPES))
def test_vectors_are_the_references(shape: str) -> None:
    with torch.inference_mode():
        expected = ReferenceTower(reference(shape), torch.float32)(features())
        assert distance(Htsat(reference(shape))(features()), expected) <= 1e-6
        assert distance(Htsat(reference(shape)).frozen()(features()), expected) <= 1e-6


@pytest.mark.parametrize("shape", shapes("narrow", "narrow, fused", "tiny", "tiny, fused", "base"))
def test_bfloat16_points_the_same_way(shape: str) -> None:
    with torch.inference_mode():
        expected = ReferenceTower(reference(shape), torch.float32)(features())
        for tower in (Htsat(reference(shape), torch.bfloat16), Htsat(reference(shape), torch.bfloat16).frozen()):
            assert functional.cosine_similarity(tower(features()), expected).min() >= 0.9999


@pytest.mark.parametrize("checkpoint", ["tiny_clap", "tiny_fused_clap", "mini"])
def test_small_checkpoints_too(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder = checkpoint_folder("mini") if checkpoint == "mini" else Path(request.getfixturevalue(checkpoint))
    tower = ClapModel.from_pretrained(folder, dtype=torch.float32).eval().audio_model.audio_encoder
    with torch.inference_mode():
        assert distance(Htsat(tower).frozen()(features()), ReferenceTower(tower, torch.float32)(features())) <= 2e-6


@pytest.mark.parametrize("shape", shapes("narrow", "narrow, fused", "tiny"))
def test_gradients_are_the_references(shape: str) -> None:
    tower = reference(shape).requires_grad_(True)
    direction = torch.randn(2, tower.num_features, generator=torch.Generator().manual_seed(2))

    def gradients(pooled: torch.Tensor) -> dict[str, torch.Tensor]:
        tower.zero_grad()
        (pooled * direction).sum().backward()
        return {name: part.grad.clone() for name, part in tower.named_parameters() if part.grad is not None}

    expected = gradients(ReferenceTower(tower, torch.float32)(features(2)))
    found = gradients(Htsat(tower)(features(2)))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


LONGER = torch.tensor([True, False, True])


@pytest.mark.parametrize("shape", shapes("narrow, fused", "tiny, fused", "base, fused"))
def test_long_recordings_vectors_are_the_references(shape: str) -> None:
    with torch.inference_mode():
        expected = ReferenceTower(reference(shape), torch.float32)(four_mels(), LONGER)
        frozen = Htsat(reference(shape)).frozen()
        for tower in (Htsat(reference(shape)), frozen):
            assert distance(tower(four_mels(), LONGER), expected) <= 1e-6
        assert distance(frozen(four_mels()[:, 0])[LONGER], expected[LONGER]) > 1e-2


def test_long_recordings_in_bfloat16_point_the_same_way() -> None:
    with torch.inference_mode():
        expected = ReferenceTower(reference("narrow, fused"), torch.float32)(four_mels(), LONGER)
        tower = Htsat(reference("narrow, fused"), torch.bfloat16)
        for found in (tower(four_mels(), LONGER), tower.frozen()(four_mels(), LONGER)):
            assert functional.cosine_similarity(found, expected).min() >= 0.9999


def test_a_long_recordings_vector_depends_neither_on_its_neighbours_nor_a_short_ones_on_local_mels() -> None:
    with torch.inference_mode():
        tower = Htsat(reference("narrow, fused")).frozen()
        together, alone = tower(four_mels(), LONGER), tower(four_mels()[:, 0])
        for index in range(3):
            one = slice(index, index + 1)
            assert distance(tower(four_mels()[one], LONGER[one]), together[one]) <= 1e-6
        short = torch.zeros(3, dtype=torch.bool)
        for found in (tower(four_mels(), short), tower(four_mels())):
            torch.testing.assert_close(found, alone, atol=0, rtol=0)
        torch.testing.assert_close(together[1], alone[1], atol=1e-6, rtol=1e-6)


def test_gradients_through_the_fusion_are_the_references() -> None:
    tower = deepcopy(reference("narrow, fused")).requires_grad_(True)
    direction = torch.randn(3, tower.num_features, generator=torch.Generator().manual_seed(2))

    def gradients(pooled: torch.Tensor) -> dict[str, torch.Tensor]:
        tower.zero_grad()
        (pooled * direction).sum().backward()
        return {name: part.grad.clone() for name, part in tower.named_parameters() if part.grad is not None}

    expected = gradients(ReferenceTower(tower, torch.float32)(four_mels(), LONGER))
    found = gradients(Htsat(tower)(four_mels(), LONGER))
    assert found.keys() == expected.keys() == dict(tower.named_parameters()).keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


def test_while_the_reference_trains_so_do_the_fusions_batch_norms() -> None:
    theirs, ours = (without_dropout(reference("narrow, fused")) for _ in range(2))
    batch = four_mels() + 7
    expected = ReferenceTower(theirs, torch.float32)(batch, LONGER)
    # Two averages that are nearly alike become -1 and 1, and what they are rounded by grows with them.
    assert distance(Htsat(ours)(batch, LONGER), expected) <= 2e-5
    learnt = dict(ours.named_buffers())
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(learnt[name], buffer, atol=1e-5, rtol=1e-5)
    before = dict(reference("narrow, fused").named_buffers())
    for name in ("batch_norm.running_mean", "patch_embed.fusion_model.global_att.2.running_var"):
        assert (learnt[name] - before[name]).abs().max() > 1e-3, name


def test_a_batchs_only_long_recording_can_be_trained_on_too() -> None:
    tower = without_dropout(reference("narrow, fused"))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ReferenceTower(tower, torch.float32)(four_mels(2), torch.tensor([True, False]))
    Htsat(tower)(four_mels(2), torch.tensor([True, False])).sum().backward()
    for name, parameter in tower.patch_embed.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_checkpoint_that_has_learnt_no_fusion_takes_no_long_recording() -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match="checkpoints with feature fusion"):
        Htsat(reference("narrow"))(four_mels(), LONGER)


def test_while_the_reference_trains_its_batch_norm_learns_from_the_batch() -> None:
    theirs, ours = (without_dropout(reference("narrow")) for _ in range(2))
    features_of_batch = features(4) + 7
    expected, found = ReferenceTower(theirs, torch.float32)(features_of_batch), Htsat(ours)(features_of_batch)
    assert distance(found, expected) <= 1e-6
    direction = torch.randn(4, theirs.num_features, generator=torch.Generator().manual_seed(2))
    for pooled in (expected, found):
        (pooled * direction).sum().backward()
    for name in ("weight", "bias"):
        gradient = getattr(theirs.batch_norm, name).grad
        assert (getattr(ours.batch_norm, name).grad - gradient).norm() <= 1e-4 * gradient.norm()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours.batch_norm, name), getattr(theirs.batch_norm, name))
    assert distance(expected, ReferenceTower(ours.eval(), torch.float32)(features_of_batch)) > 1e-3


def test_a_vector_depends_on_nothing_but_its_window() -> None:
    with torch.inference_mode():
        tower = Htsat(reference("narrow")).frozen()
        together = tower(features(5))
        for index, window in enumerate(features(5)):
            assert distance(tower(window[None]), together[index][None]) <= 1e-6


def test_stages_can_be_run_one_by_one() -> None:
    with torch.inference_mode():
        tower = Htsat(reference("narrow"))
        assert tower.num_stages == 4
        tokens = tower.embed_patches(tower.patches(features()))
        assert tokens.shape == (64, 3, 64, 32)
        for stage, shape in enumerate([(16, 3, 64, 64), (4, 3, 64, 128), (1, 3, 64, 256), (1, 3, 64, 256)]):
            tokens = tower.run_stages(tokens, stage, stage + 1)
            assert tokens.shape == shape
        torch.testing.assert_close(tower.pooled(tokens), tower(features()), atol=1e-5, rtol=1e-5)


def test_a_frozen_tower_stays_as_it_is_while_its_reference_learns() -> None:
    with torch.random.fork_rng(devices=[]):
        learning = ClapAudioEncoder(ClapAudioConfig(depths=[1, 1, 1, 1])).eval()
    with torch.inference_mode():
        live, frozen = Htsat(learning), Htsat(learning).frozen()
        before = frozen(features(1))
    with torch.no_grad():
        for parameter in learning.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    with torch.inference_mode():
        torch.testing.assert_close(frozen(features(1)), before, atol=0, rtol=0)
        assert distance(live(features(1)), before) > 1e-3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"spec_size": 512}, "spec_size 512"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
        ({"patch_stride": [2, 2]}, "patches"),
    ],
)
def test_another_towers_shape_is_refused_in_a_sentence(changes: dict[str, Any], named: str) -> None:
    config = ClapAudioConfig(depths=[1, 1, 1, 1], **changes)
    with pytest.raises(ModelError, match=rf"{named}.*use a CLAP checkpoint\.$"):
        Htsat(ClapAudioEncoder(config))
