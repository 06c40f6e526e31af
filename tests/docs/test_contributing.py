"""CONTRIBUTING.md names files, functions and make targets that exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import REPOSITORY

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
SOURCE = "\n".join(
    path.read_text("utf-8")
    for folder in ("clapboard", "training", "tests")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
    if path.name != "test_contributing.py"
)
CODE = re.findall(r"`([^`\n]+)`", TEXT)
# Of files that stand with a part of their path alone, the folders that they are in.
FOLDERS = (
    "",
    "clapboard",
    "clapboard/store/migrations",
    "clapboard/model",
    "tests/clapboard/labels",
    "tests/clapboard/suggest",
)


@pytest.mark.parametrize("path", sorted({re.split(r"[:<]", code)[0] for code in CODE if re.search(r"\w/|\.py", code)}))
def test_a_file_or_folder_that_it_names_exists(path: str) -> None:
    paths = [word for word in path.split() if "/" in word or word.endswith(".py")]
    for word in paths:
        assert any((REPOSITORY / folder / word).exists() for folder in FOLDERS), word


@pytest.mark.parametrize("name", sorted({code for code in CODE if re.fullmatch(r"_?[A-Za-z]+(_[A-Za-z]+)+", code)}))
def test_a_name_that_it_names_stands_in_the_source(name: str) -> None:
    assert re.search(rf"\b{name}\b", SOURCE)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)`", TEXT))))
def test_a_make_target_that_it_names_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
