"""Memory that is shared with a decoder, and files in memory."""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import shutil
import tempfile
from typing import IO

_F_ADD_SEALS, _SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1033, 1, 2, 4


def shared_memory(num_bytes: int) -> tuple[mmap.mmap, IO[bytes]]:
    """Memory, and the file to share it by. It can't be shrunk: we would be killed where the other side cut it off."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("samples", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b")
        file.truncate(num_bytes)
        fcntl.fcntl(file.fileno(), _F_ADD_SEALS, _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW)
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        file.truncate(num_bytes)
    return mmap.mmap(file.fileno(), num_bytes), file


def with_descriptor(file: IO[bytes]) -> IO[bytes]:
    """The open file, or a copy of it where it lies in memory only: what can be handed to another process."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
        return file
    in_memory = hasattr(os, "memfd_create")
    copy = os.fdopen(os.memfd_create("audio"), "w+b") if in_memory else tempfile.TemporaryFile()  # noqa: SIM115
    file.seek(0)
    shutil.copyfileobj(file, copy)
    copy.flush()
    return copy
