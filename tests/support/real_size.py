"""`pytest --real-size`: the tests that compute models of the published checkpoints' size, which take minutes.

Tiny models of the same geometry hold the same promises in every run; `make test-real-size`, and `make bench` before it
measures, hold them at the size that is served.
"""

from __future__ import annotations

import pytest

MARK = "real_size"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--real-size`."""
    parser.addoption("--real-size", action="store_true", help="also run the tests of models of the real size")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line("markers", f"{MARK}: computes a model of a published checkpoint's size")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the marked tests out unless they are asked for."""
    if config.getoption("--real-size"):
        return
    left_out = [item for item in items if item.get_closest_marker(MARK)]
    items[:] = [item for item in items if not item.get_closest_marker(MARK)]
    config.hook.pytest_deselected(items=left_out)
