"""A part of a file that is a recording, read as if it were a file of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO


@dataclass(frozen=True)
class Part:
    """One recording in a file: where it lies, in bytes, and what to read in place of sizes that are wrong."""

    start: int
    end: int
    patches: dict[int, bytes] = field(default_factory=dict)  # by their places, counted from `start`
    sound_bytes: int = 0  # of its samples, if the container says
    missing_bytes: int = 0  # that its header counts beyond them
    is_plain: bool = False  # whether its samples aren't compressed

    def open(self, file: IO[bytes]) -> Section:
        """The recording as a file of its own."""
        return Section(file, self.start, self.end, self.patches)


class Section:
    """Bytes `start`–`end` of an open file, for decoders to read like a file with a position of its own."""

    def __init__(self, file: IO[bytes], start: int, end: int, patches: Mapping[int, bytes]) -> None:
        """`patches` are read in place of the bytes at these places, counted from `start`."""
        self._file = file
        self._start = start
        self._size = end - start
        self._patches = patches
        self._at = 0

    def tell(self) -> int:
        """The place from which the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which is returned. Never fails: damaged headers send decoders far outside the file."""
        base = (0, self._at, self._size)[whence]
        self._at = min(max(0, base + offset), self._size)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; all that are left if it is negative."""
        left = self._size - self._at
        self._file.seek(self._start + self._at)
        content = self._file.read(left if size < 0 else min(size, left))
        first, self._at = self._at, self._at + len(content)
        overlapping = {at: patch for at, patch in self._patches.items() if first - len(patch) < at < self._at}
        if not overlapping:
            return content
        patched = bytearray(content)
        for at, patch in overlapping.items():
            begin, stop = max(at, first), min(at + len(patch), self._at)
            patched[begin - first : stop - first] = patch[begin - at : stop - at]
        return bytes(patched)
