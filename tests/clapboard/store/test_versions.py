from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clapboard.errors import NotFoundError
from clapboard.store import Store
from clapboard.store.versions import Version
from clapboard.suggest.head import ControlHead, Head
from tests.support.together import together

PROJECT = 7


def head(seed: int = 0) -> Head:
    numbers = np.random.default_rng(seed)
    return Head((ControlHead(*(numbers.normal(size=shape).astype(np.float32) for shape in ((4,), (2, 4), (2,)))),))


def version(name: str, *, of: Head | None = None, project: int = PROJECT, **manifest: object) -> Version:
    return Version(project, name, "mini", "e1", of.name if of else "zero-shot", "space", manifest=manifest)


@pytest.fixture
def known(store: Store) -> Store:
    """A store that knows the project."""
    store.catalog.put_project(PROJECT, "<View/>", "v0")
    return store


def names(store: Store, project: int = PROJECT) -> list[str]:
    return [one.model_version for one in store.versions.of_project(project)]


def test_a_version_comes_back_as_it_was_put_with_its_time(known: Store, clock: Callable[..., float]) -> None:
    put_at = clock()
    assert known.versions.put(version("v1", kind="head", num_labels=3))
    clock.advance(5)
    known.versions.put(version("v0"))
    known.versions.put(version("v1", project=8))
    found = known.versions.get(PROJECT, "v1")
    assert (found.created_at, found.promoted_at) == (put_at, None)
    assert (found.encoder, found.encoder_version, found.head, found.space_id) == ("mini", "e1", "zero-shot", "space")
    assert found.manifest == {"kind": "head", "num_labels": 3}
    assert names(known) == ["v1", "v0"]
    assert known.versions.encoder_versions() == {"e1"}


def test_put_again_it_keeps_its_time_and_adds_to_its_manifest(known: Store, clock: Callable[..., float]) -> None:
    known.versions.put(version("v1", kind="head", num_labels=3))
    first = known.versions.get(PROJECT, "v1")
    clock.advance(5)
    assert not known.versions.put(version("v1", num_labels=4, verdict={"promote": True}))
    again = known.versions.get(PROJECT, "v1")
    assert again.created_at == first.created_at
    assert again.manifest == {"kind": "head", "num_labels": 4, "verdict": {"promote": True}}


def test_a_head_comes_back_number_by_number_until_no_version_names_it(known: Store) -> None:
    one, other = head(1), head(2)
    known.versions.put(version("v1", of=one), one)
    known.versions.put(version("v2", of=other), other)
    known.versions.put(version("v1", of=one, project=8), one)
    found = known.versions.head("e1", "space", one.name)
    assert found.name == one.name
    assert np.array_equal(found.controls[0].weights, one.controls[0].weights)
    known.versions.forget(PROJECT, ["v1", "v2"])
    assert known.versions.head("e1", "space", one.name).name == one.name  # another project's
    with pytest.raises(NotFoundError, match=f"Head {other.name} is no longer stored"):
        known.versions.head("e1", "space", other.name)
    for encoder, space in (("e2", "space"), ("e1", "other")):
        with pytest.raises(NotFoundError):
            known.versions.head(encoder, space, one.name)


def test_the_pointer_names_one_version_and_keeps_when_it_was_moved(known: Store, clock: Callable[..., float]) -> None:
    for name in ("v1", "v2"):
        known.versions.put(version(name))
    assert known.versions.promoted(PROJECT) is None
    assert known.versions.promote(PROJECT, "v1")
    moved_at = clock()
    clock.advance(5)
    known.catalog.put_project(PROJECT, "<View></View>", "v1")  # leaves it alone
    promoted = known.versions.promoted(PROJECT)
    assert promoted is not None
    assert (promoted.model_version, promoted.promoted_at) == ("v1", moved_at)
    known.versions.promote(PROJECT, "v2")
    assert {name: one.model_version for name, one in known.versions.all_promoted().items()} == {PROJECT: "v2"}
    assert known.versions.get(PROJECT, "v1").promoted_at == moved_at
    assert known.versions.get(PROJECT, "v2").promoted_at == clock()


def test_a_version_that_is_to_replace_another_does_so_only_while_that_is_promoted(known: Store) -> None:
    for name in ("v1", "v2", "v3"):
        known.versions.put(version(name))
    assert not known.versions.promote(PROJECT, "v1", instead_of="v2")
    assert known.versions.promoted(PROJECT) is None
    assert known.versions.promote(PROJECT, "v1", instead_of="")  # the base model
    assert known.versions.promote(PROJECT, "v1", instead_of="")  # once more: it is there
    assert not known.versions.promote(PROJECT, "v2", instead_of="")
    assert known.versions.promote(PROJECT, "v2", instead_of="v1")
    assert not known.versions.promote(PROJECT, "v3", instead_of="v1")
    assert names(known) == ["v1", "v2", "v3"]
    assert known.versions.get(PROJECT, "v3").promoted_at is None


def test_of_several_that_would_replace_the_same_one_does(known: Store, open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(6)]
    for number in range(6):
        known.versions.put(version(f"v{number}"))
    moved: list[str] = []

    def promote(number: int) -> None:
        if stores[number].versions.promote(PROJECT, f"v{number}", instead_of=""):
            moved.append(f"v{number}")

    together([lambda number=number: promote(number) for number in range(6)])
    promoted = known.versions.promoted(PROJECT)
    assert promoted is not None
    assert moved == [promoted.model_version]


def test_an_unknown_version_is_never_promoted_and_the_pointer_stays(known: Store) -> None:
    known.versions.put(version("v1"))
    known.versions.promote(PROJECT, "v1")
    with pytest.raises(NotFoundError, match=r"Project 7 has no version v9: `clapboard models list --project 7`"):
        known.versions.promote(PROJECT, "v9")
    promoted = known.versions.promoted(PROJECT)
    assert promoted is not None
    assert promoted.model_version == "v1"
    with pytest.raises(NotFoundError, match="no version v9"):
        known.versions.get(PROJECT, "v9")
    assert not known.versions.promote(99, "v1")


def test_the_promoted_version_is_not_forgotten(known: Store) -> None:
    kept = head()
    known.versions.put(version("v1", of=kept), kept)
    known.versions.put(version("v2"))
    known.versions.promote(PROJECT, "v1")
    known.versions.forget(PROJECT, ["v1", "v2", "v9"])
    assert names(known) == ["v1"]
    assert known.versions.head("e1", "space", kept.name).name == kept.name
    known.versions.put(version("v2", project=8))
    known.versions.forget(8, ["v2"])  # of a project that never introduced itself
    assert names(known, 8) == []
