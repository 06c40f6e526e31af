"""The pages of the documentation and their blocks of code, with what a comment before a block says of it.

A shell block is run by `test_blocks.py`, unless the line before it is `<!-- not run: REASON -->`, where it needs
hardware, a hub or a program that isn't there, or `<!-- tested by: FILE -->`, where another test runs the same.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8")
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
}
"""By their path in the repository."""

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>not run|tested by): (?P<reason>[^\n]*?) -->\n)?"
    r"^ *```(?P<language>\w+)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark` is empty for what is run as it stands."""

    page: str
    language: str
    code: str
    mark: str
    reason: str

    @property
    def lines(self) -> list[str]:
        """The lines of code, without those that are empty."""
        return [line for line in self.code.splitlines() if line.strip()]


BLOCKS = [
    Block(page, found["language"], textwrap.dedent(found["code"]), found["mark"] or "", found["reason"] or "")
    for page, text in PAGES.items()
    for found in _BLOCK.finditer(text)
]
SHELL = [block for block in BLOCKS if block.language == "sh"]


def commands(text: str) -> list[str]:
    """Every `clapboard …` with arguments that the page shows, in a shell block or inside a sentence, as it is typed."""
    blocks = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))
    typed = re.findall(
        r"^ *(?:[A-Z_]+=\S+ |torchrun .*? -m |docker .*? exec \w+ )*(clapboard .+)$", blocks, re.MULTILINE
    )
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*typed, *(" ".join(code.split()) for code in re.findall(r"`(clapboard [^`]+ [^`]+)`", prose))]
