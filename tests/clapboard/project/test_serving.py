"""What answers a project: the pointer, as far as it holds for the label config and the encoders of now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clapboard.errors import NotFoundError, NoWorkerError
from clapboard.labels.label_config import parse_label_config
from clapboard.project.serving import (
    Serving,
    find_serving,
    has_checkpoint,
    is_tuned,
    serving,
    stored_head,
    zero_shot_version,
)
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.versions import Version
from clapboard.suggest.head import ZERO_SHOT, ControlHead, Head
from clapboard.suggest.prediction import model_version, space_id
from tests.support.fake_label_studio import CHOICES

LABELS = parse_label_config(CHOICES)
OTHER_LABELS = parse_label_config(CHOICES.replace("rain", "wind"))
BASE = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
TUNED = Encoder("models/7/mini-tuned-4", "fedcba9876543210", "float32", 2, 10.0)
ENCODERS = {encoder.model: encoder for encoder in (BASE, TUNED)}
PROJECT = 7


def promoted(encoder: Encoder, head: str = "head-00000001", space: str = space_id(LABELS)) -> Version:
    return Version(PROJECT, "whatever", encoder.model, encoder.version, head, space)


def test_without_a_promoted_version_the_base_model_answers_by_the_texts() -> None:
    found = serving(LABELS, BASE, None, ENCODERS)
    assert found == Serving(BASE, ZERO_SHOT, space_id(LABELS), model_version(BASE, LABELS))


@pytest.mark.parametrize("encoder", [BASE, TUNED])
def test_a_promoted_version_answers_with_its_encoder_and_head(encoder: Encoder) -> None:
    found = serving(LABELS, BASE, promoted(encoder), ENCODERS)
    assert (found.encoder, found.head) == (encoder, "head-00000001")
    assert found.model_version == model_version(encoder, LABELS, "head-00000001")


def test_under_another_label_config_its_encoder_stays_and_its_head_does_not() -> None:
    found = serving(OTHER_LABELS, BASE, promoted(TUNED), ENCODERS)
    assert (found.encoder, found.head, found.space_id) == (TUNED, ZERO_SHOT, space_id(OTHER_LABELS))


@pytest.mark.parametrize(
    ("version", "encoders"),
    [
        (promoted(TUNED), {BASE.model: BASE}),  # no worker has loaded it yet
        (promoted(TUNED), ENCODERS | {TUNED.model: Encoder(TUNED.model, "0" * 16, "float32", 2, 10.0)}),
        (promoted(Encoder("mini", "an older release", "float32", 2, 10.0)), ENCODERS),
        (promoted(Encoder("laion/clap", "1" * 16, "float32", 2, 10.0)), ENCODERS),  # CLAPBOARD_MODEL was changed
    ],
)
def test_what_no_worker_can_serve_gives_way_to_the_base_model(version: Version, encoders: dict[str, Encoder]) -> None:
    found = serving(LABELS, BASE, version, encoders)
    assert (found.encoder, found.head) == (BASE, ZERO_SHOT)


def test_a_model_that_another_installation_announced_is_not_served_in_place_of_ours() -> None:
    other = Encoder("laion/clap", "1" * 16, "float32", 2, 10.0)
    found = serving(LABELS, BASE, promoted(other), ENCODERS | {other.model: other})
    assert found.encoder == BASE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'clapboard.db'}")
    yield store
    store.close()


def test_the_store_says_what_serves_once_a_worker_is_up(store: Store) -> None:
    with pytest.raises(NoWorkerError, match=r"No worker has loaded the model mini yet: start one with"):
        find_serving(store, "mini", PROJECT, LABELS)
    for encoder in (BASE, TUNED):
        store.catalog.announce_encoder(encoder)
    assert find_serving(store, "mini", PROJECT, LABELS).head == ZERO_SHOT
    store.catalog.put_project(PROJECT, CHOICES, "v0")
    store.versions.put(promoted(TUNED))
    store.versions.promote(PROJECT, "whatever")
    assert find_serving(store, "mini", PROJECT, LABELS).encoder == TUNED
    assert find_serving(store, "mini", PROJECT + 1, LABELS).encoder == BASE


def test_a_fitted_head_is_read_and_a_zero_shot_one_made_of_class_weights(store: Store) -> None:
    zero_shot = serving(LABELS, BASE, None, ENCODERS)
    assert stored_head(store, zero_shot, LABELS) is None  # no worker has computed them
    weights = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    store.catalog.put_label_space(space_id(LABELS), CHOICES)
    store.catalog.put_class_weights(BASE.version, space_id(LABELS), weights)
    made = stored_head(store, zero_shot, LABELS)
    assert made is not None
    assert np.array_equal(made.controls[0].weights, 10.0 * weights[:2])
    head = Head((ControlHead(np.zeros(2, np.float32), weights[:2], np.ones(2, np.float32)),))
    fitted = serving(LABELS, BASE, promoted(BASE, head.name), ENCODERS)
    with pytest.raises(NotFoundError):
        stored_head(store, fitted, LABELS)
    store.versions.put(promoted(BASE, head.name), head)
    read = stored_head(store, fitted, LABELS)
    assert read is not None
    assert read.name == head.name


def test_the_zero_shot_version_is_there_for_every_project_that_introduced_itself(store: Store) -> None:
    store.catalog.announce_encoder(BASE)
    with pytest.raises(NotFoundError, match="Project 7 is unknown"):
        zero_shot_version(store, "mini", PROJECT)
    store.catalog.put_project(PROJECT, CHOICES, "v0")
    found = zero_shot_version(store, "mini", PROJECT)
    assert found.model_version == model_version(BASE, LABELS)
    assert store.catalog.label_config(found.space_id) == CHOICES


def test_a_checkpoint_is_there_when_its_manifest_is(tmp_path: Path) -> None:
    settings = Settings(MODEL_DIR=tmp_path)
    folder = tmp_path / TUNED.model
    folder.mkdir(parents=True)
    assert not has_checkpoint(settings, TUNED.model)
    (folder / "manifest.json").write_text("{}")
    assert has_checkpoint(settings, TUNED.model)
    assert [is_tuned(name) for name in (TUNED.model, "mini", "/models/7/mini")] == [True, False, False]
