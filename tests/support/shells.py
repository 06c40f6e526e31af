"""README's shell blocks, and the shells that people paste them into."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.support.programs import REPOSITORY

README = (REPOSITORY / "README.md").read_text("utf-8")
SHELLS = {"bash": ("bash", "--norc", "--noprofile", "-i"), "zsh": ("zsh", "-f", "-i")}


def blocks(text: str) -> list[list[str]]:
    """The lines of each block of shell commands."""
    found = re.findall(r"(?ms)^( *)```sh\n(.*?)^ *```$", text)
    return [[line.removeprefix(indent) for line in block.splitlines()] for indent, block in found]


def needs_shell(name: str) -> None:
    """Skips the test where that shell isn't installed."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
