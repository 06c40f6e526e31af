from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ClapModel

from clapboard.model.checkpoints import Clap
from tests.support.tower_checkpoints import make_model
from training.finetuning.tower import Tower
from training.finetuning.tower_stages import TrainableStages

pytestmark = pytest.mark.usefixtures("one_torch_thread")

ALL_STAGES: tuple[TrainableStages, ...] = ("projection", "stage4", "stages34")
RATES = {"projection": 3.0, "stage 4": 2.0, "stage 3": 1.0}


@pytest.fixture(params=["tiny_clap", "tiny_fused_clap", "pann"])
def model(request: pytest.FixtureRequest) -> Clap:
    if request.param == "pann":
        return make_model("cnn14", "bert")[0]
    return ClapModel.from_pretrained(Path(request.getfixturevalue(request.param)))


def features() -> torch.Tensor:
    return torch.randn(2, 1001, 64, generator=torch.Generator().manual_seed(1)) * 10 - 40


@pytest.mark.parametrize("stages", ALL_STAGES)
def test_both_parts_in_a_row_are_the_model(model: Clap, stages: TrainableStages) -> None:
    tower = Tower(model, stages)
    channels = features()[:, None].expand(-1, 4 if model.config.audio_config.enable_fusion else 1, -1, -1)
    with torch.no_grad():
        expected = model.get_audio_features(input_features=channels, is_longer=torch.zeros(2, 1, dtype=torch.bool))
        found = tower.upper(tower.lower(features()))
    torch.testing.assert_close(found, expected.pooler_output, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("stages", "shape"), [("projection", (128,)), ("stage4", (64, 128)), ("stages34", (256, 64))])
def test_the_lower_part_ends_where_learning_begins(
    tiny_clap: Path, stages: TrainableStages, shape: tuple[int, ...]
) -> None:
    tower = Tower(ClapModel.from_pretrained(tiny_clap), stages)
    with torch.no_grad():
        assert tower.lower(features()).shape == (2, *shape)


@pytest.mark.parametrize(
    ("stages", "shape"), [("projection", (64,)), ("stage4", (32, 31, 2)), ("stages34", (16, 62, 4))]
)
def test_panns_lower_part_ends_where_learning_begins(stages: TrainableStages, shape: tuple[int, ...]) -> None:
    tower = Tower(make_model("cnn14", "bert")[0], stages)
    assert tower.lower(features()).shape == (2, *shape)


def test_gradients_reach_of_pann_what_learns_and_nothing_else() -> None:
    model = make_model("cnn14", "bert")[0]
    tower = Tower(model, "stage4")
    tower.upper(tower.lower(features())).sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == learning
    assert {".".join(name.split(".")[:3]) for name in learning if not name.startswith("audio_projection")} == {
        "audio_model.audio_encoder.conv_block6",
        "audio_model.audio_encoder.fc1",
    }


def test_gradients_reach_what_learns_and_nothing_else(tiny_clap: Path) -> None:
    model = ClapModel.from_pretrained(tiny_clap)
    tower = Tower(model, "stage4")
    tower.upper(tower.lower(features())).sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert with_gradient == learning
    assert {name.split(".linear")[0].split(".blocks")[0] for name in learning} == {
        "audio_projection",
        "audio_model.audio_encoder.layers.3",
        "audio_model.audio_encoder.norm.weight",
        "audio_model.audio_encoder.norm.bias",
    }


def test_each_part_has_its_rate_and_only_stages_matrices_decay(tiny_clap: Path) -> None:
    tower = Tower(ClapModel.from_pretrained(tiny_clap), "stages34")
    groups = tower.parameter_groups(RATES, weight_decay=0.1)
    found = {(group["lr"], group["weight_decay"]) for group in groups}
    assert found == {(3.0, 0.0), (2.0, 0.1), (2.0, 0.0), (1.0, 0.1), (1.0, 0.0)}
    assert all((parameter.ndim > 1) for group in groups if group["weight_decay"] for parameter in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(tower.weights())


def test_weights_can_be_mixed_with_the_original(tiny_clap: Path) -> None:
    tower = Tower(ClapModel.from_pretrained(tiny_clap), "projection")
    assert tower.anchor_distance() == 0
    tuned = {name: value + 1 for name, value in tower.original.items()}
    for alpha in (0.25, 1.0, 0.0):
        tower.set_weights(tuned, alpha)
        for name, value in tower.weights().items():
            torch.testing.assert_close(value, tower.original[name] + alpha)
        num_weights = sum(value.numel() for value in tuned.values())
        assert tower.anchor_distance().item() == pytest.approx(alpha**2 * num_weights, rel=1e-4)
    assert all(torch.equal(value, tower.original[name]) for name, value in tower.weights().items())
