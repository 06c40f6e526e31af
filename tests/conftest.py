"""Fixtures that any test may ask for, by the module that they live in."""

from __future__ import annotations

import os

import pytest

# Tests run several processes at once: with more threads each, they would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.support.fixtures_label_studio", "tests.support.fixtures_services"]

_SLOW = ("tests/e2e/", "tests/workers/", "tests/test_bench.py", "tests/clapboard/cli/")
"""Folders and files whose few tests wait for real processes: begun last, one of them would keep all others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes longest."""
    items.sort(key=lambda item: next((i for i, place in enumerate(_SLOW) if item.nodeid.startswith(place)), len(_SLOW)))
