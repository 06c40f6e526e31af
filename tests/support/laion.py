"""laion-clap's own code, where `make bench` has installed it: the original that conversions are held to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.bench.peers import PEERS_FOLDER, import_alone


def laion_module(name: str) -> ModuleType:
    """A module of laion-clap (`htsat`, `pann_model`, `model`), without its package; the test is skipped without it."""
    folder = PEERS_FOLDER / "laion_clap" / "clap_module"
    if not folder.is_dir():
        pytest.skip("laion-clap is not installed: `make bench` installs it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch deprecates
            return import_alone(folder, name)
    except ImportError as error:
        pytest.skip(f"laion-clap can't be imported: {error}")


def small_pann(pann: ModuleType, widths: Sequence[int]) -> Any:
    """laion-clap's PANN-14 with random weights and statistics, of other widths than it knows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = pann.Cnn14.__new__(pann.Cnn14)  # its own sizes are fixed: 80 million parameters
        torch.nn.Module.__init__(model)
        model.enable_fusion, model.fusion_type = False, "None"
        model.spectrogram_extractor = pann.Spectrogram(
            n_fft=1024, hop_length=480, win_length=1024, freeze_parameters=True
        )
        model.logmel_extractor = pann.LogmelFilterBank(
            sr=48_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, ref=1.0, amin=1e-10, top_db=None
        )
        model.bn0 = torch.nn.BatchNorm2d(64)
        for number, (before, width) in enumerate(zip([1, *widths], widths, strict=False), start=1):
            setattr(model, f"conv_block{number}", pann.ConvBlock(before, width))
        model.fc1, model.fc_audioset = (torch.nn.Linear(widths[-1], size) for size in (widths[-1], 527))
        randomize_statistics(model)
    return model.eval()


def small_htsat(htsat: ModuleType, *, fused: bool) -> Any:
    """laion-clap's HTSAT with random weights and statistics: of the shape of its tiny one, but narrow and flat."""
    config = SimpleNamespace(mel_bins=64, window_size=1024, hop_size=480, sample_rate=48_000, fmin=50, fmax=14_000)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch deprecates
        torch.manual_seed(4)
        model = htsat.HTSAT_Swin_Transformer(
            embed_dim=16,
            depths=[1, 2, 1, 1],
            num_heads=[1, 2, 4, 8],
            config=config,
            enable_fusion=fused,
            fusion_type="aff_2d" if fused else "None",
        )
        randomize_statistics(model)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn(parameter.shape)
    return model.eval()


def randomize_statistics(model: torch.nn.Module) -> None:
    """BatchNorms as training leaves them, the first one fit for decibels."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            if name.endswith("bn0"):
                module.running_mean.fill_(-40)  # type: ignore[union-attr]
                module.running_var.fill_(400)  # type: ignore[union-attr]
