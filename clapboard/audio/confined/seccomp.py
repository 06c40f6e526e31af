"""A seccomp filter: from then on, the kernel refuses this process everything but reading, computing and answering.

Opening a file, a connection or a process fails with «Operation not permitted», for whatever code runs here. The filter
is our own because the libraries for it need libseccomp, which slim images lack, and this one only lists numbers.

Sources: the kernel's Documentation/userspace-api/seccomp_filter.rst, linux/filter.h, and its tables of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4  # in struct seccomp_data

# The numbers of the calls that are allowed: on open descriptors, memory, locks, signals' ends, clocks, and the end.
_ALLOWED = {
    "x86_64": (
        0xC000003E,
        {
            "read": 0,
            "close": 3,
            "fstat": 5,
            "lseek": 8,
            "mmap": 9,
            "mprotect": 10,
            "munmap": 11,
            "brk": 12,
            "rt_sigaction": 13,
            "rt_sigprocmask": 14,
            "rt_sigreturn": 15,
            "pread64": 17,
            "sched_yield": 24,
            "mremap": 25,
            "madvise": 28,
            "nanosleep": 35,
            "getpid": 39,
            "sendto": 44,
            "recvfrom": 45,
            "recvmsg": 47,
            "exit": 60,
            "sigaltstack": 131,
            "gettid": 186,
            "futex": 202,
            "restart_syscall": 219,
            "clock_gettime": 228,
            "clock_nanosleep": 230,
            "exit_group": 231,
            "newfstatat": 262,
            "getrandom": 318,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "close": 57,
            "lseek": 62,
            "read": 63,
            "pread64": 67,
            "newfstatat": 79,
            "fstat": 80,
            "exit": 93,
            "exit_group": 94,
            "futex": 98,
            "nanosleep": 101,
            "clock_gettime": 113,
            "clock_nanosleep": 115,
            "sched_yield": 124,
            "restart_syscall": 128,
            "sigaltstack": 132,
            "rt_sigaction": 134,
            "rt_sigprocmask": 135,
            "rt_sigreturn": 139,
            "getpid": 172,
            "gettid": 178,
            "sendto": 206,
            "recvfrom": 207,
            "recvmsg": 212,
            "brk": 214,
            "munmap": 215,
            "mremap": 216,
            "mmap": 222,
            "mprotect": 226,
            "madvise": 233,
            "getrandom": 278,
        },
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def lacking() -> str:
    """Why the filter can't be put in force here, in words; empty if it can."""
    if not sys.platform.startswith("linux"):
        return f"{platform.system()} has no seccomp"
    if platform.machine() not in _ALLOWED or sys.maxsize < 2**32:
        return f"there is none for {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, None, 0, 0)  # EFAULT where a filter would be accepted
    reason = ctypes.get_errno()
    return "" if reason == errno.EFAULT else f"the kernel or the container refuses it ({os.strerror(reason)})"


def confine_system_calls() -> None:
    """Puts the filter in force, for good. Raises `OSError` if the kernel refuses it."""
    instructions = _instructions(*_ALLOWED[platform.machine()])
    program = _Program(len(instructions), ctypes.cast(instructions, ctypes.POINTER(_Instruction)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the system calls can't be limited")


def _instructions(architecture: int, allowed: dict[str, int]) -> ctypes.Array[_Instruction]:
    """The filter's program: the architecture's calls with these numbers pass, all others fail."""
    numbers = sorted(allowed.values())
    rows = [
        (_LOAD_WORD, 0, 0, _AT_ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _AT_NUMBER),
        *((_JUMP_IF_EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return (_Instruction * len(rows))(*(_Instruction(*row) for row in rows))
