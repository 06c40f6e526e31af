"""The order of the test modules: those that take longest come first, so that no process ends long after the others."""

from __future__ import annotations

import pytest

from tests.support.programs import REPOSITORY

_LONGEST = (
    "tests/workers/test_delivery.py",
    "tests/e2e",
    "tests/clapboard/cli/test_run.py",
    "tests/clapboard/cli/test_hostile_label_studio.py",
    "tests/clapboard/cli/test_pretrain.py",
    "tests/test_bench.py",
    "tests/training/test_finetune.py",
    "tests/workers",
    "tests/clapboard/model/htsat",
    "tests/clapboard/audio/test_whole_files.py",
    "tests/backend",
    "tests/clapboard/cli",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the modules, and leave each module's tests as they are."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(REPOSITORY).as_posix()
    return next((place for place, start in enumerate(_LONGEST) if path.startswith(start)), len(_LONGEST))
