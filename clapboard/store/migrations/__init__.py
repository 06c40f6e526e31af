"""Revisions of the store's schema, applied by Alembic, which is imported only where a store has to be upgraded.

A revision is a file `versions/0007_what_it_does.py` with a function `upgrade()`. Its number is its place in the one
chain: to move it, rename the file. CONTRIBUTING.md tells how to add one.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["HEAD", "VERSIONS", "numbered"]

VERSIONS = Path(__file__).parent / "versions"


def numbered(file: str) -> tuple[str, str | None]:
    """The revision of a file, from its name, and the one before it."""
    number = Path(file).name[:4]
    return number, f"{int(number) - 1:04}" if int(number) > 1 else None


HEAD = max(file.name[:4] for file in VERSIONS.glob("[0-9]*.py"))
"""The newest revision: this release's schema."""
