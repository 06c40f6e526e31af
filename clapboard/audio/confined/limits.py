"""What a decoder gives up before it sees its first file."""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from pathlib import Path

from clapboard.audio.confined.seccomp import confine_system_calls, lacking

MEMORY_BYTES = 1 << 30
"""How much memory a decoder may take in addition to what it has at its start."""

_PR_SET_PDEATHSIG = 1
_DESCRIPTORS = 16
_STATM = Path("/proc/self/statm")


def confine() -> None:
    """Limits this process for good, as far as the system can; `seccomp.lacking` says how far that is."""
    if sys.platform.startswith("linux"):  # the fork server's end is ours
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
        resource.RLIMIT_NPROC: 0,
    }
    if _STATM.exists():
        limits[resource.RLIMIT_AS] = int(_STATM.read_text().split()[0]) * resource.getpagesize() + MEMORY_BYTES
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    if not lacking():
        confine_system_calls()
