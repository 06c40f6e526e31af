"""Data that lies beside the repository on some machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import REPOSITORY


@pytest.fixture(scope="session")
def esc10() -> Path:
    """The folder of ESC-10's clips."""
    folder = REPOSITORY.parent / "shared" / "esc10"
    if not (folder / "esc10.csv").is_file():
        pytest.skip("../shared/esc10 is not there: real recordings are not tested")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of files that were read in part."""
    folder = REPOSITORY.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("../shared/cases is not there: the files that people sent in are not tested")
    return folder
