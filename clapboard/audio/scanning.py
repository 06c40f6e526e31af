"""Reading bytes at a place in a file, and searching it, whatever a damaged header says of places and sizes."""

from __future__ import annotations

import re
from typing import IO

_FARTHEST = 1 << 40  # file systems refuse to seek much farther
_SCANNED_AT_ONCE = 1 << 20
_LONGEST_MATCH = 32
_MOST_JUNK_BYTES = 4_096


def bytes_at(file: IO[bytes], at: int, size: int) -> bytes:
    """Up to `size` bytes from the place `at`; none if that lies outside the file."""
    if not 0 <= at < _FARTHEST:
        return b""
    file.seek(at)
    return file.read(size)


def find(pattern: re.Pattern[bytes], file: IO[bytes], start: int, end: int) -> int:
    """The first place from `start` on at which the pattern, of 32 bytes at most, matches; `end` if there is none."""
    for at in range(start, end, _SCANNED_AT_ONCE):
        if match := pattern.search(bytes_at(file, at, _SCANNED_AT_ONCE + _LONGEST_MATCH)):
            return at + match.start()
    return end


def is_junk(file: IO[bytes], start: int, end: int, recording_bytes: int) -> bool:
    """Whether the last bytes of a recording are too few, or too empty, to be sound."""
    if end - start <= min(_MOST_JUNK_BYTES, recording_bytes // 2):
        return True
    places = range(start, end, _SCANNED_AT_ONCE)
    return not any(bytes_at(file, at, min(_SCANNED_AT_ONCE, end - at)).strip(b"\0") for at in places)
