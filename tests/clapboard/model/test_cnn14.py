from __future__ import annotations

from types import ModuleType

import pytest
import torch

from clapboard.model.cnn14 import Cnn14
from tests.support.laion import laion_module, small_pann

pytestmark = pytest.mark.usefixtures("one_torch_thread")

WIDTHS = (4, 8, 8, 16, 16, 32)


def features(num_frames: int = 1001) -> torch.Tensor:
    return torch.randn(3, num_frames, 64, generator=torch.Generator().manual_seed(1)) * 10


@pytest.fixture(scope="module")
def pann() -> ModuleType:
    return laion_module("pann_model")


def test_parameters_are_called_as_published_and_are_as_many() -> None:
    with torch.device("meta"):
        published = Cnn14().state_dict()
    assert published["bn0.weight"].shape == (64,)
    assert published["conv_block1.conv1.weight"].shape == (64, 1, 3, 3)
    assert published["conv_block6.conv2.weight"].shape == (2048, 2048, 3, 3)
    assert published["conv_block6.bn2.running_var"].shape == (2048,)
    assert published["fc1.weight"].shape == (2048, 2048)
    learnt = [name for name in published if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    # Kong et al. 2020, table IV: 80,753,615, with the layer for AudioSet's 527 classes
    assert sum(published[name].numel() for name in learnt) == 80_753_615 - 527 * (2048 + 1)


def test_it_computes_what_laion_clap_does(pann: ModuleType) -> None:
    theirs, ours = small_pann(pann, WIDTHS), Cnn14(WIDTHS).eval()
    assert not ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys
    waveform = torch.randn(2, 96_000, generator=torch.Generator().manual_seed(2)) / 10
    with torch.no_grad():
        log_mel = theirs.logmel_extractor(theirs.spectrogram_extractor(waveform))[:, 0]  # [2, 201, 64]
        expected = theirs({"waveform": waveform})["embedding"]
        torch.testing.assert_close(ours(log_mel), expected, atol=1e-5, rtol=1e-5)


def test_frames_are_what_laion_clap_calls_fine_grained(pann: ModuleType) -> None:
    theirs, ours = small_pann(pann, WIDTHS), Cnn14(WIDTHS).eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    waveform = torch.randn(2, 480_000, generator=torch.Generator().manual_seed(2)) / 10
    with torch.no_grad():
        log_mel = theirs.logmel_extractor(theirs.spectrogram_extractor(waveform))[:, 0]  # [2, 1001, 64]
        repeated = theirs({"waveform": waveform})["fine_grained_embedding"]  # [2, 31 · 32, C]
        frames = ours.frames(ours.run_blocks(ours.image(log_mel)))
    assert frames.shape == (2, 31, 32)
    torch.testing.assert_close(frames[:, 1:-1], repeated[:, ::32][:, 1:-1], atol=1e-5, rtol=1e-5)


def test_the_mode_decides_about_batch_norm_and_dropout() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tower = Cnn14(WIDTHS)
        before = tower.bn0.running_mean.clone()
        first, again = tower(features()), tower(features())
        assert not torch.equal(first, again)
        assert not torch.equal(tower.bn0.running_mean, before)
    tower.eval()
    kept = {name: value.clone() for name, value in tower.state_dict().items()}
    assert torch.equal(tower(features()), tower(features()))
    assert all(torch.equal(value, kept[name]) for name, value in tower.state_dict().items())


def test_gradients_reach_every_parameter() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tower = Cnn14(WIDTHS, block_dropout=0.0, dropout=0.0)
    tower(features()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in tower.parameters())


@pytest.mark.parametrize("num_frames", [32, 200, 1001])
def test_any_number_of_frames_gives_one_vector(num_frames: int) -> None:
    with torch.no_grad():
        assert Cnn14(WIDTHS).eval()(features(num_frames)).shape == (3, 32)
