from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from clapboard.audio.windows import WINDOW_SAMPLES, Waveform, repeat_pad
from clapboard.errors import ModelError
from clapboard.model.checkpoints import AudioTowerName, TextTowerName, fingerprint
from clapboard.model.clap import ClapEncoder
from clapboard.model.towers import Cnn14Tower, load_tower
from tests.support.processor import needs_bfloat16
from tests.support.recordings import sweep
from tests.support.tower_checkpoints import AUDIO_TOWERS, SENTENCES, TEXT_TOWERS, make_model, save_pair

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TEXTS = [*SENTENCES, "dog", "a dog and rain " * 30]


@cache
def unlike_windows() -> Waveform:
    noise = np.random.default_rng(8).standard_normal((2, WINDOW_SAMPLES)) * [[0.3], [1e-3]]
    clips = [sweep(10), repeat_pad(sweep(3.3)), np.zeros(WINDOW_SAMPLES)]
    return np.concatenate([np.stack(clips), noise]).astype(np.float32)


def log_mel() -> torch.Tensor:
    return torch.randn(2, 1001, 64, generator=torch.Generator().manual_seed(1)) * 10 - 40


@pytest.fixture(scope="module", params=[*itertools.product(AUDIO_TOWERS, TEXT_TOWERS)], ids="-".join)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    towers: tuple[AudioTowerName, TextTowerName] = request.param
    return save_pair(tmp_path_factory.mktemp("pair"), *towers)


def load(folder: Path, batch_size: int = 8) -> ClapEncoder:
    return ClapEncoder.load(str(folder), device="cpu", engine="torch", batch_size=batch_size)


def test_every_pair_embeds_windows_and_texts_alone_or_in_company(folder: Path) -> None:
    encoder = load(folder)
    heard, read = encoder.embed_windows(unlike_windows()), encoder.embed_texts(TEXTS)
    for rows in (heard, read):
        assert rows.shape == (5, encoder.identity.dim)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        assert (rows @ rows.T)[~np.eye(5, dtype=bool)].max() < 0.99999
    alone = load(folder, batch_size=1)
    for index in (4, 1):
        assert np.linalg.norm(alone.embed_windows(unlike_windows()[[index]])[0] - heard[index]) < 1e-6
        assert np.linalg.norm(alone.embed_texts([TEXTS[index]])[0] - read[index]) < 1e-6


def test_every_pair_gives_frames_of_norm_1_whatever_the_batch(folder: Path) -> None:
    encoder = load(folder)
    found = encoder.embed_windows_with_frames(unlike_windows())
    assert (encoder.num_frames, encoder.frame_s) in {(32, 0.3125), (31, 0.32)}
    assert found.frames.shape == (5, encoder.num_frames, encoder.identity.dim)
    np.testing.assert_allclose(np.linalg.norm(found.frames, axis=-1), 1, atol=1e-6)
    alone = load(folder, batch_size=1).embed_windows_with_frames(unlike_windows()[[4]])
    assert np.linalg.norm(alone.frames[0] - found.frames[4], axis=-1).max() < 1e-6


def test_every_pair_gives_what_its_model_says(folder: Path) -> None:
    encoder = load(folder)
    waveforms = torch.from_numpy(unlike_windows())
    with torch.no_grad():
        expected = encoder.model.get_audio_features(input_features=encoder.log_mel(waveforms)[:, None]).pooler_output
    assert np.linalg.norm(encoder.embed_windows(unlike_windows()) - expected.numpy(), axis=1).max() < 1e-5


def test_every_pair_is_named_by_its_files(folder: Path) -> None:
    identity = load(folder).identity
    assert identity.version == fingerprint(folder)
    assert (identity.dim, identity.logit_scale) == (32, pytest.approx(100))


@needs_bfloat16
def test_bfloat16_stays_near(tmp_path: Path) -> None:
    folder = save_pair(tmp_path, "cnn14", "bert")
    exact = load(folder).embed_windows(unlike_windows())
    half = ClapEncoder.load(str(folder), device="cpu", dtype="bfloat16", engine="torch", batch_size=8).embed_windows(
        unlike_windows()
    )
    assert (exact * half).sum(axis=1).min() > 0.999


def test_openvino_is_for_htsat() -> None:
    encoder = make_model("cnn14", "bert")[0].audio_model.audio_encoder
    with pytest.raises(ModelError, match="openvino doesn't compute PANN-14"):
        load_tower(encoder, torch.float32, log_mel(), "openvino")


def test_pann_follows_its_weights_and_gives_gradients() -> None:
    encoder = make_model("cnn14", "bert")[0].audio_model.audio_encoder
    tower = load_tower(encoder, torch.float32, log_mel(), "torch")
    before = tower(log_mel())
    before.sum().backward()
    kernel = encoder.conv_block1.conv1.weight
    assert kernel.grad.abs().sum() > 0
    with torch.no_grad():
        kernel.mul_(torch.rand(kernel.shape, generator=torch.Generator().manual_seed(5)))
    assert not torch.allclose(tower(log_mel()), before, atol=1e-3)


def test_pann_follows_its_training_mode() -> None:
    encoder = make_model("cnn14", "bert")[0].audio_model.audio_encoder.train()
    before = encoder.bn0.running_mean.clone()
    Cnn14Tower(encoder, torch.float32)(log_mel())
    assert not torch.equal(encoder.bn0.running_mean, before)
