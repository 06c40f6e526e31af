"""What runs in a decoder in place of ours: files that say so make it do what an exploit of a native decoder would."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np

from clapboard.audio.mono import Block, mono_blocks
from clapboard.audio.pieces import Bound, Condition
from clapboard.errors import AudioError

DECODE = "tests.support.hostile_decoder:decode"
_MARK = b"HOSTILE "


def hostile(deed: str, **arguments: int) -> bytes:
    """A file that does the deed, the name of a function below."""
    return _MARK + " ".join([deed, *map(str, arguments.values())]).encode()


def decode(file: IO[bytes], bound: Bound, channel: str, condition: Condition) -> Iterator[Block]:
    """Any other file's samples."""
    content = file.read(100)
    if content.startswith(_MARK):
        deed, *arguments = content.removeprefix(_MARK).decode().split()
        _DEEDS[deed](*map(int, arguments))
    file.seek(0)
    yield from mono_blocks(file, bound, channel, condition)


def segfault() -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


def hang() -> None:
    """Never return."""
    while True:
        time.sleep(1)


def spin() -> None:
    """Never return, and take all of a core."""
    while True:
        pass


def bomb() -> None:
    """Take memory until there is none."""
    taken = []
    while True:
        taken.append(np.zeros(1 << 24))


def leave() -> None:
    """End the process as if all were well."""
    os._exit(0)


def probe(parent: int) -> None:
    """Tell what of the outside can be reached, as the error's sentence; the number of the process that it works for."""
    attempts: dict[str, Callable[[], object]] = {
        "a network": lambda: socket.socket(socket.AF_INET),
        "a socket": lambda: socket.socket(socket.AF_UNIX),
        "a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "a new file": lambda: os.open("/tmp/hostile", os.O_WRONLY | os.O_CREAT),
        "a folder": lambda: os.scandir("/"),
        "its environment": lambda: os.open("/proc/self/environ", os.O_RDONLY),
        "our environment": lambda: os.open(f"/proc/{parent}/environ", os.O_RDONLY),
        "our memory": lambda: os.open(f"/proc/{parent}/mem", os.O_RDWR),
        "our end": lambda: os.kill(parent, signal.SIGTERM),
        "a process": os.fork,
        "a program": lambda: os.execv("/bin/true", ["true"]),
        "a trace of us": lambda: _require_success(ctypes.CDLL(None).ptrace(16, parent, None, None)),
        "more memory": lambda: bytearray(2 << 30),
        "its standard error": lambda: os.write(2, b"hostile"),
    }
    reached = [name for name, attempt in attempts.items() if _succeeds(attempt)]
    descriptors = [number for number in range(256) if _succeeds(lambda number=number: os.fstat(number))]
    names = " ".join(sorted(os.environ))
    raise AudioError(f"reached: {', '.join(reached)}; descriptors: {len(descriptors)}; environment: {names}")


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return False
    return True


def _require_success(result: int) -> None:
    if result:
        raise OSError


_DEEDS: dict[str, Callable[..., None]] = {deed.__name__: deed for deed in (segfault, hang, spin, bomb, leave, probe)}
