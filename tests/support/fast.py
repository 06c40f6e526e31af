"""`pytest --fast`: the tests that start no server, browser or process and compute briefly, for the loop of a change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.programs import REPOSITORY

_STARTED = re.compile(
    r"\b(Installation|LabelStudioServer|subprocess|needs_program|running_\w+|label_studio_(client|api)|two_choices|"
    r"redis_url|Page|esc10|cases|real_size_\w+|pytest\.mark\.e2e)\b"
)
"""What a test module names that starts a server, browser or process, or reads real recordings."""

_FIXTURES = {"new_postgres_url", "redis_url", "label_studio", "esc10", "cases", "house", "page"}
_PARAMETERS = {"postgresql", "redis"}

_LEFT_OUT = {
    # Folders whose tests start something, each in its own way.
    *("tests/bench", "tests/demo", "tests/docker", "tests/e2e", "tests/support"),
    # Modules that compute for seconds.
    "tests/clapboard/cli/test_evaluate.py",
    "tests/clapboard/model/laion/test_conversion.py",
    "tests/clapboard/project/test_prelabel.py",
    *("tests/training/benchmarks/test_embedding.py", "tests/training/captions", "tests/training/corpus/test_build.py"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--fast`."""
    parser.addoption("--fast", action="store_true", help="leave out what starts something or computes for long")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out whole modules without importing them, which takes longer than many tests."""
    if not config.getoption("fast"):
        return None
    if collection_path.relative_to(REPOSITORY).as_posix() in _LEFT_OUT:
        return True
    is_module = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_module and _STARTED.search(collection_path.read_text("utf-8")) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests whose fixtures or parameters start something."""
    if config.getoption("fast"):
        left_out = [item for item in items if _starts_something(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _starts_something(item)]


def _starts_something(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    fixtures = _FIXTURES.intersection(getattr(item, "fixturenames", ()))
    return bool(fixtures) or any(value in _PARAMETERS for value in parameters if isinstance(value, str))
