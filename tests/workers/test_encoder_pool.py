"""EncoderPool: the base model for good, finetuned ones as they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.errors import ModelError
from clapboard.model.clap import ClapEncoder
from clapboard.model.load import load_encoder
from clapboard.settings import Settings
from clapboard.store import Store
from tests.support.together import together
from tests.workers.conftest import CountingEncoder, no_checkpoint
from workers.encoder_pool import EncoderPool, announce_encoder

BASE = CountingEncoder()


class Loader:
    """Loads, and keeps what."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, name: str) -> ClapEncoder:
        self.loaded.append(name)
        return CountingEncoder(model=name)  # type: ignore[return-value]


def pool(loader: Loader, capacity: int) -> EncoderPool:
    return EncoderPool(BASE, loader, capacity=capacity)  # type: ignore[arg-type]


def test_whatever_is_not_finetuned_is_the_base_model_and_is_never_loaded() -> None:
    loader = Loader()
    encoders = pool(loader, 4)
    assert {encoders.get(name) for name in ("counting", "laion/clap", "", "mini")} == {BASE}
    assert loader.loaded == []


def test_a_finetuned_encoder_is_loaded_once() -> None:
    loader = Loader()
    encoders = pool(loader, 4)
    first = encoders.get("models/1/a")
    assert encoders.get("models/1/a") is first
    assert (first.identity.model, loader.loaded) == ("models/1/a", ["models/1/a"])


def test_the_least_recently_used_encoder_is_dropped_and_loaded_again_when_needed() -> None:
    loader = Loader()
    encoders = pool(loader, 3)  # the base model is one of them
    for name in ("models/1/a", "models/1/b", "models/1/a", "models/1/c", "models/1/a", "models/1/b"):
        encoders.get(name)
    assert loader.loaded == ["models/1/a", "models/1/b", "models/1/c", "models/1/b"]


def test_with_a_capacity_of_one_a_finetuned_encoder_is_still_loaded() -> None:
    loader = Loader()
    encoders = pool(loader, 1)
    for name in ("models/1/a", "counting", "models/1/a", "models/1/b"):
        encoders.get(name)
    assert loader.loaded == ["models/1/a", "models/1/b"]


def test_many_threads_load_an_encoder_once() -> None:
    loader = Loader()
    encoders = pool(loader, 4)
    assert len({id(found) for found in together([lambda: encoders.get("models/1/a")] * 8)}) == 1
    assert loader.loaded == ["models/1/a"]


def test_a_checkpoint_that_cannot_be_loaded_leaves_the_others_in_place() -> None:
    encoders = EncoderPool(BASE, no_checkpoint, capacity=2)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="can't be read"):
        encoders.get("models/1/gone")
    assert encoders.get("counting") is BASE


def test_an_announced_encoder_is_in_the_catalog(tiny_clap: Path) -> None:
    encoder = load_encoder(Settings(CLAPBOARD_MODEL=str(tiny_clap), CLAPBOARD_DEVICE="cpu", CLAPBOARD_ENGINE="torch"))
    store = Store("sqlite://")
    announced = announce_encoder(store, encoder)
    assert store.catalog.encoder(str(tiny_clap)) == announced
    assert (announced.version, announced.logit_scale) == (encoder.identity.version, encoder.identity.logit_scale)
    store.close()
