"""HeadCache: what a worker scores with, computed or read once."""

from __future__ import annotations

import numpy as np
import pytest

from clapboard.errors import LabelConfigError, NotFoundError
from clapboard.store.versions import Version
from clapboard.suggest.head import ControlHead, Head, zero_shot_head
from clapboard.suggest.prediction import compute_class_weights
from tests.workers.conftest import LABELS, SPACE_ID, CountingEncoder, World
from workers.head_cache import HeadCache


def fitted(seed: int = 0) -> Head:
    numbers = np.random.default_rng(seed)
    parts = [numbers.normal(size=shape).astype(np.float32) for shape in ((4,), (2, 4), (2,))]
    return Head((ControlHead(*parts),))


class WordyEncoder(CountingEncoder):
    """Counts the texts that it is given."""

    num_texts = 0

    def embed_texts(self, texts):  # type: ignore[no-untyped-def]
        self.num_texts += len(texts)
        return super().embed_texts(texts)


def test_class_weights_are_computed_once_and_kept_for_the_backend(world: World) -> None:
    encoder = WordyEncoder()
    label_space, head = world.heads.get(encoder, SPACE_ID)  # type: ignore[arg-type]
    assert label_space == LABELS
    weights = compute_class_weights(LABELS, CountingEncoder().embed_texts)
    assert weights.shape == (3, 4)  # two labels and the neutral prompts
    assert head.name == zero_shot_head(LABELS, weights, encoder.logit_scale).name
    kept = world.store.catalog.class_weights(encoder.identity.version, SPACE_ID)
    assert kept is not None
    assert np.array_equal(kept, weights)
    num_texts = encoder.num_texts
    assert num_texts > 0
    for heads in (world.heads, HeadCache(world.store)):  # the same worker, and another one
        assert heads.get(encoder, SPACE_ID)[1].name == head.name  # type: ignore[arg-type]
    assert encoder.num_texts == num_texts


def test_another_encoder_has_class_weights_of_its_own(world: World) -> None:
    other = WordyEncoder(version="fedcba9876543210")
    world.heads.get(world.encoder, SPACE_ID)  # type: ignore[arg-type]
    world.heads.get(other, SPACE_ID)  # type: ignore[arg-type]
    assert other.num_texts > 0


def test_a_fitted_head_is_read_from_the_store_by_its_name(world: World) -> None:
    head = fitted()
    encoder = world.encoder.identity
    world.store.versions.put(Version(1, "v1", "counting", encoder.version, head.name, SPACE_ID), head)
    _, found = world.heads.get(world.encoder, SPACE_ID, head.name)  # type: ignore[arg-type]
    assert found.name == head.name
    assert np.array_equal(found.controls[0].weights, head.controls[0].weights)


@pytest.mark.parametrize(
    ("space_id", "name", "error"),
    [
        ("unknown", "zero-shot", NotFoundError),
        ("broken", "zero-shot", LabelConfigError),
        (SPACE_ID, "head-00000000", NotFoundError),
    ],
)
def test_what_is_not_there_or_broken_is_said_and_not_remembered(
    world: World, space_id: str, name: str, error: type[Exception]
) -> None:
    world.store.catalog.put_label_space("broken", "<View/>")
    for _ in range(2):
        with pytest.raises(error):
            world.heads.get(world.encoder, space_id, name)  # type: ignore[arg-type]
    assert world.heads.get(world.encoder, SPACE_ID)[0] == LABELS  # type: ignore[arg-type]


def test_no_more_than_sixty_four_are_remembered_and_a_forgotten_one_is_read_anew(world: World) -> None:
    encoder = WordyEncoder()
    heads = [fitted(seed) for seed in range(70)]
    for number, head in enumerate(heads):
        world.store.versions.put(
            Version(1, f"v{number}", "counting", encoder.identity.version, head.name, SPACE_ID), head
        )
        world.heads.get(encoder, SPACE_ID, head.name)  # type: ignore[arg-type]
    world.store.versions.forget(1, [f"v{number}" for number in range(70)])
    assert world.heads.get(encoder, SPACE_ID, heads[-1].name)[1].name == heads[-1].name  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="is no longer stored"):
        world.heads.get(encoder, SPACE_ID, heads[0].name)  # type: ignore[arg-type]
