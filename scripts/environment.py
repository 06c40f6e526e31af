"""A virtual environment that knows what is installed in it, and whether that came to its end."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


class Environment:
    """A virtual environment with a record of what is installed in it: a level, and a digest of what defines it.

    The record is written last. A mark that an installation has begun is removed with it, so a mark that is still there
    when the next one begins means that packages may be there in part.
    """

    def __init__(self, folder: Path, definition: list[Path]) -> None:
        """`definition` are the files that say what is to be installed."""
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._definition = definition
        self._record = folder / ".installed"
        self._begun = folder / ".begun"

    @property
    def recorded_level(self) -> str:
        """The level that was installed last, whether or not its definition has changed since; empty without one."""
        return self._read_record()[0]

    @property
    def is_current(self) -> bool:
        """Whether what was installed last is what the definition says now."""
        return self._read_record()[1] == self._digest()

    def begin(self) -> None:
        """Mark that an installation begins, after emptying an environment that an interrupted one left or is broken."""
        if self._begun.exists() or (self.python.is_symlink() and not self._python_runs()):
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.folder.mkdir(exist_ok=True)
        self._begun.touch()
        self._record.unlink(missing_ok=True)

    def finish(self, level: str) -> None:
        """Record that the level is installed."""
        self._record.write_text(f"{level} {self._digest()}\n")
        self._begun.unlink()

    def _read_record(self) -> tuple[str, str]:
        with suppress(FileNotFoundError, ValueError):
            level, digest = self._record.read_text().split()
            return level, digest
        return "", ""

    def _digest(self) -> str:
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in self._definition)).hexdigest()

    def _python_runs(self) -> bool:
        with suppress(OSError):
            return subprocess.run([self.python, "-c", ""], capture_output=True, check=False).returncode == 0
        return False
