from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from clapboard.cli.fast_imports import fast_imports


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_the_collector_rests_within_the_block_and_never_searches_what_was_made_there() -> None:
    before = gc.get_freeze_count()
    with fast_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    with pytest.raises(ImportError), fast_imports():
        raise ImportError
    assert gc.isenabled()
