"""Memory that large requests have freed: given back to the system, which the C library doesn't do by itself."""

from __future__ import annotations

import ctypes


class FreedMemory:
    """Whether a large request has ended since memory was last given back."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = library.malloc_trim if hasattr(library, "malloc_trim") else None  # glibc's own
        self._is_due = False

    def note(self) -> None:
        """A large request has ended."""
        self._is_due = True

    def give_back(self) -> None:
        """Give back what is free, if there may be much. Takes milliseconds, without Python's lock."""
        if self._is_due and self._trim is not None:
            self._is_due = False
            self._trim(0)
