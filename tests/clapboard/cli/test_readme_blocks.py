"""The shell blocks of README and all pages, as people paste them: in bash and in zsh, line by line."""

from __future__ import annotations

import re
import subprocess
from itertools import chain

import pytest

from tests.docs.pages import PAGES
from tests.support.shells import SHELLS, blocks, needs_shell

SHOWN = "\n".join(PAGES.values())


def test_no_line_has_what_a_shell_cant_take() -> None:
    assert blocks(SHOWN)
    for line in chain.from_iterable(blocks(SHOWN)):
        assert "…" not in line
        assert not re.search(r"(^|\s)#", line), f"zsh takes a pasted comment for words: {line}"


@pytest.mark.parametrize("shell", list(SHELLS))
def test_every_block_is_understood(shell: str) -> None:
    needs_shell(shell)
    for script in {"\n".join(block) + "\n" for block in blocks(SHOWN)}:
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), script
