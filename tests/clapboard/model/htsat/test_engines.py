from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import ClapModel

from clapboard.errors import ModelError
from clapboard.model.htsat import Htsat
from clapboard.model.htsat.engines import Engine, ReferenceTower, load_tower
from clapboard.model.htsat.openvino import OpenVinoTower

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def tower_of(folder: Path) -> torch.nn.Module:
    found: torch.nn.Module = ClapModel.from_pretrained(folder).eval().audio_model.audio_encoder
    return found


def features(num_windows: int = 3) -> torch.Tensor:
    return torch.randn(num_windows, 1001, 64, generator=torch.Generator().manual_seed(1)) * 15 - 40


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


LEAST_COSINES = {"tiny_clap": 0.9998, "tiny_fused_clap": 0.9998, "real_size_clap": 0.9999}
"""Of vectors computed in bfloat16 with those in float32."""


@pytest.fixture(
    scope="module",
    params=[
        "tiny_clap",
        "tiny_fused_clap",
        pytest.param("real_size_clap", marks=pytest.mark.real_size),
    ],
)
def reference(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, Any, float]:
    """A checkpoint's tower, transformers' output for `features()`, and the least cosine to it in bfloat16."""
    tower = tower_of(Path(request.getfixturevalue(request.param)))
    channels = features()[:, None].expand(-1, 4 if tower.config.enable_fusion else 1, -1, -1)  # type: ignore[union-attr]
    with torch.inference_mode():
        output = tower(channels, is_longer=torch.zeros(len(channels), 1, dtype=torch.bool))
    return tower, output, LEAST_COSINES[request.param]


@pytest.mark.parametrize("engine", ["openvino", "torch", "reference"])
def test_engines_agree(engine: Engine, reference: tuple[torch.nn.Module, Any, float]) -> None:
    tower, expected, least_cosine = reference
    frames = expected.last_hidden_state.mean(dim=2).transpose(1, 2)  # [B, C, F, T] → [B, T, C]
    with torch.inference_mode():
        whole = load_tower(tower, torch.float32, features(1), engine).with_frames(features())
        half = load_tower(tower, torch.bfloat16, features(1), engine).with_frames(features())
    assert distance(whole.pooled, expected.pooler_output) <= 2e-6
    assert distance(whole.frames, frames) <= 1e-5
    assert half.pooled.dtype == half.frames.dtype == torch.float32
    assert functional.cosine_similarity(half.pooled, expected.pooler_output).min() >= least_cosine
    assert functional.cosine_similarity(half.frames, frames, dim=-1).min() >= least_cosine - 1e-4


@pytest.mark.parametrize("engine", ["openvino", "torch", "reference"])
def test_engines_agree_on_long_recordings(engine: Engine, tiny_fused_clap: Path) -> None:
    reference = tower_of(tiny_fused_clap)
    four = torch.stack([features().roll(places, 1) + places for places in range(4)], dim=1)
    longer = torch.tensor([True, False, True])
    with torch.inference_mode():
        expected = ReferenceTower(reference, torch.float32)(four, longer)
        assert distance(expected, ReferenceTower(reference, torch.float32)(four)) > 1e-3
        tower = load_tower(reference, torch.float32, features(1), engine)
        assert distance(tower(four, longer), expected) <= 2e-6
        assert distance(tower(four[1:2], longer[1:2]), tower(features()[1:2])) <= 1e-6
        half = load_tower(reference, torch.bfloat16, features(1), engine)(four, longer)
    assert functional.cosine_similarity(half, expected).min() >= 0.9998


def test_the_fastest_installed_engine_is_used(tiny_clap: Path) -> None:
    assert isinstance(load_tower(tower_of(tiny_clap), torch.float32, features(1)), OpenVinoTower)


class Astray(torch.nn.Module):
    """A reference that disagrees with its own weights."""

    def __init__(self, reference: torch.nn.Module, field: str) -> None:
        super().__init__()
        self.reference = reference
        self.field = field

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.reference, name)

    def forward(self, *args: object, **options: object) -> object:
        output: Any = self.reference(*args, **options)
        output[self.field] = output[self.field].roll(1, dims=-1)
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("field", "noun"), [("pooler_output", "vectors"), ("last_hidden_state", "frames")])
def test_an_engine_that_disagrees_with_the_reference_is_skipped(
    tiny_clap: Path, field: str, noun: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    astray = Astray(tower_of(tiny_clap), field)
    for engine in ("openvino", "torch"):
        with pytest.raises(ModelError, match=f"Engine {engine} gives other {noun} than the reference"):
            load_tower(astray, dtype, features(1), engine)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_tower(astray, dtype, features(1)), ReferenceTower)
    assert [record.getMessage().split(" gives")[0] for record in caplog.records] == [
        "a slower engine is used: Engine openvino",
        "a slower engine is used: Engine torch",
    ]


def test_a_tower_of_another_shape_is_computed_by_the_reference(tiny_clap: Path) -> None:
    model = ClapModel.from_pretrained(tiny_clap).eval()
    reference = model.audio_model.audio_encoder
    reference.config.hidden_act = "gelu_new"
    with pytest.raises(ModelError, match="hidden_act"):
        Htsat(reference)
    assert isinstance(load_tower(reference, torch.float32, features(1)), ReferenceTower)


def test_windows_of_an_openvino_tower_dont_depend_on_their_batch(tiny_clap: Path) -> None:
    tower = OpenVinoTower(tower_of(tiny_clap), torch.float32, num_threads=2)
    together = tower.with_frames(features(5))
    for index, window in enumerate(features(5)):
        alone = tower.with_frames(window[None])
        assert torch.equal(alone.pooled[0], together.pooled[index])
        assert torch.equal(alone.frames[0], together.frames[index])


def refuse(*_: object, **__: object) -> torch.Tensor:
    raise RuntimeError("Supported primitive descriptors list is empty")


@pytest.mark.parametrize("step", ["__init__", "with_frames"])
def test_an_engine_that_fails_is_skipped_for_the_next_slower_one(
    tiny_clap: Path, step: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenVINO does in bfloat16 on a processor for which oneDNN has no such Softmax."""
    reference = tower_of(tiny_clap)
    monkeypatch.setattr(OpenVinoTower, step, refuse)
    with pytest.raises(ModelError, match=r"^Engine openvino can't compute this model in bfloat16 on this machine"):
        load_tower(reference, torch.bfloat16, features(1), "openvino")
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_tower(reference, torch.bfloat16, features(1)), Htsat)
    (record,) = caplog.records
    assert record.getMessage().startswith("a slower engine is used: Engine openvino can't compute this model")
    monkeypatch.setattr(Htsat, "with_frames", refuse)
    assert isinstance(load_tower(reference, torch.bfloat16, features(1)), ReferenceTower)
