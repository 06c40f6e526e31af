"""CLAP checkpoints with random weights, each made once in a run, and how torch computes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.run_folder import made_once, run_folder


@pytest.fixture(scope="session")
def tiny_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a very small CLAP, unfused."""
    return made_once(run_folder(tmp_path_factory) / "tiny_clap", _tiny(fused=False))


@pytest.fixture(scope="session")
def tiny_fused_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a very small CLAP, fused."""
    return made_once(run_folder(tmp_path_factory) / "tiny_fused_clap", _tiny(fused=True))


@pytest.fixture(scope="session")
def real_size_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CLAP of `laion/clap-htsat-unfused`'s size (0.6 GB, seconds to make)."""
    return made_once(run_folder(tmp_path_factory) / "real_size_clap", _real_size(fused=False))


@pytest.fixture(scope="session")
def real_size_fused_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CLAP of `laion/clap-htsat-fused`'s size (0.6 GB, seconds to make)."""
    return made_once(run_folder(tmp_path_factory) / "real_size_fused_clap", _real_size(fused=True))


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Torch computes in one thread: on busy cores its threads wait for each other longer than small models take."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _tiny(*, fused: bool) -> Callable[[Path], object]:
    from tests.support.clap_checkpoints import save_tiny  # which takes seconds to import

    return lambda folder: save_tiny(folder, fused=fused)


def _real_size(*, fused: bool) -> Callable[[Path], object]:
    from tests.support.clap_checkpoints import save_real_size

    return lambda folder: save_real_size(folder, fused=fused)
