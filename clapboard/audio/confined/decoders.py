"""Files → blocks of samples, by decoders in processes of their own; what a file does to one becomes an error."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from clapboard.audio.confined import messages
from clapboard.audio.confined.fork_server import Fork, ForkServer
from clapboard.audio.confined.limits import MEMORY_BYTES
from clapboard.audio.confined.messages import Request
from clapboard.audio.confined.shared_memory import shared_memory, with_descriptor
from clapboard.audio.pieces import Condition
from clapboard.errors import AudioError, AudioTooLong, ClapboardError, InternalError
from clapboard.untrusted import storable_text

Block = npt.NDArray[np.float32]

SILENT_S = 60.0
"""How long a decoder may take for the next moment of sound. It usually takes milliseconds."""

CPU_S, CPU_SHARE = 60.0, 0.125
"""How much processor time a file may take: so many seconds, and this share of the longest that it may be."""

_LOOK_S = 1.0  # how often to look at a decoder that says nothing
_MAX_SENTENCE_CHARS = 1_000
_REMEDY = "Export it again, for example as WAV, FLAC or Ogg."

log = logging.getLogger(__name__)


class _Died(Exception):
    """A decoder was lost to a file: what that did, in words; empty if nobody knows that it was the file."""


class Decoders:
    """Decoder processes, as many as are in use at once, each for one file at a time. Threads share them."""

    def __init__(self, server: ForkServer, *, silent_s: float = SILENT_S, cpu_s: float = CPU_S) -> None:
        self._server = server
        self._silent_s = silent_s
        self._cpu_s = cpu_s
        self._idle: list[_Decoder] = []

    def start(self) -> None:
        """Have the fork server start, so that the first file won't wait for it. Returns at once."""
        self._server.start()

    def blocks(self, file: IO[bytes], request: Request, condition: Condition) -> Iterator[Block]:
        """The open file as consecutive blocks `[t]`; `condition` is set at its end.

        If a decoder that has decoded other files dies, a fresh one begins anew: they may be what broke it.
        Raises `AudioError` if the file can't be used, `AudioTooLong`, and `InternalError` if another try may succeed.
        """
        num_given = 0
        with contextlib.ExitStack() as stack:
            open_file = with_descriptor(file)
            if open_file is not file:
                stack.enter_context(open_file)
            for may_be_used in (True, False):
                decoder = self._take(may_be_used=may_be_used)
                is_fresh = decoder.is_fresh
                is_unharmed = False
                try:
                    for block in decoder.blocks(open_file, request, condition, num_given):
                        num_given += block.size
                        yield block
                    is_unharmed = True
                    return
                except _Died as death:
                    if is_fresh:
                        raise _error(request.name, str(death)) from None
                except (AudioError, InternalError):
                    is_unharmed = True
                    raise
                finally:
                    self._give_back(decoder, is_unharmed=is_unharmed)

    def cpu_used_s(self) -> float:
        """How much processor time the decoders that are idle now have used."""
        return sum(decoder.cpu_used_s() for decoder in [*self._idle])

    def close(self) -> None:
        """End all processes."""
        while self._idle:
            self._idle.pop().close()
        self._server.close()

    def abandon(self) -> None:
        """Let go of them in a fork of this process, whose first file starts new ones."""
        for decoder in self._idle:
            decoder.close()
        self._idle.clear()
        self._server.abandon()

    def _take(self, *, may_be_used: bool) -> _Decoder:
        with contextlib.suppress(IndexError):
            if may_be_used:
                return self._idle.pop()
        return _Decoder(self._server, self._silent_s, self._cpu_s)

    def _give_back(self, decoder: _Decoder, *, is_unharmed: bool) -> None:
        if is_unharmed and len(self._idle) < (os.cpu_count() or 1):
            self._idle.append(decoder)
        else:
            decoder.end()


class _Decoder:
    """One decoder process. Whoever uses it has it for himself."""

    def __init__(self, server: ForkServer, silent_s: float, cpu_s: float) -> None:
        self._server = server
        self._silent_s = silent_s
        self._cpu_s = cpu_s
        self.is_fresh = True
        self._memory, shared = shared_memory(messages.SLOTS_BYTES)
        self._slots = np.frombuffer(self._memory, np.float32).reshape(messages.NUM_SLOTS, messages.SLOT_SAMPLES)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(min(_LOOK_S, silent_s))
        with theirs, shared:
            try:
                self._process: Fork | None = server.fork(theirs, shared.fileno())
            except InternalError:
                self._connection.close()
                raise

    def blocks(self, file: IO[bytes], request: Request, condition: Condition, num_given: int) -> Iterator[Block]:
        """The file's blocks after the first `num_given` samples. Raises `AudioError`, `InternalError` or `_Died`."""
        self.is_fresh = False
        cpu_limit_s = self.cpu_used_s() + self._cpu_s + CPU_SHARE * request.longest_s
        slot = 0
        try:
            os.lseek(file.fileno(), 0, os.SEEK_SET)  # an earlier decoder may have left it anywhere
            socket.send_fds(self._connection, [request.to_json()], [file.fileno()])
            while (message := self._received(cpu_limit_s))[:1] != messages.OUTCOME:
                if message[:1] != messages.SLOT:
                    continue
                num_samples = min(*messages.SAMPLES.unpack(message[1:]), messages.SLOT_SAMPLES)
                block = self._slots[slot, :num_samples].copy()
                self._connection.send(messages.TAKEN)
                slot = (slot + 1) % messages.NUM_SLOTS
                skipped = min(num_given, num_samples)
                num_given -= skipped
                if skipped < num_samples:
                    yield block[skipped:]
            outcome = json.loads(message[1:])
        except OSError:
            raise self._death() from None
        except (ValueError, struct.error):
            raise _Died("makes its decoder talk nonsense") from None
        _read(outcome, request.name, condition)

    def end(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._server.end(self._process)
            self._process = None
        self.close()

    def close(self) -> None:
        """Let go of the process, which then ends by itself."""
        self._connection.close()

    def _received(self, cpu_limit_s: float) -> bytes:
        """The decoder's next message. Raises `_Died`."""
        deadline = time.monotonic() + self._silent_s
        while True:
            message = None
            with contextlib.suppress(TimeoutError):
                message = self._connection.recv(messages.MAX_BYTES)
            if message == b"":
                raise self._death()
            if self.cpu_used_s() > cpu_limit_s:
                raise _Died("took too much processor time to decode")
            if message is not None:
                return message
            if time.monotonic() > deadline:
                raise _Died(f"gave no more sound within {self._silent_s:g} s of decoding")

    def _death(self) -> _Died:
        """What became of a process that is gone."""
        process, self._process = self._process, None
        code = None if process is None else self._server.end(process)
        if code is None or code == -signal.SIGKILL:
            return _Died("")
        log.warning("a decoder ended with %s and is replaced", _in_words(code))
        return _Died(f"ended its decoder with {_in_words(code)}")

    def cpu_used_s(self) -> float:
        """The processor time that the process has used; 0 where the system doesn't tell."""
        with contextlib.suppress(OSError):
            if self._process is not None and sys.platform.startswith("linux"):
                return time.clock_gettime((~self._process.pid << 3) | 2)  # see clock_getcpuclockid(3)
        return 0.0


def _read(outcome: Any, name: str, condition: Condition) -> None:
    """Set the condition. Raises the error, if the outcome is one, or `_Died` if it makes no sense."""
    try:
        code = outcome.get("code", "")
        if not code:
            condition.lost_s += float(outcome["lost_s"])
            condition.missing_s += float(outcome["missing_s"])
            condition.cancelled_s += float(outcome["cancelled_s"])
            condition.sample_rate, condition.num_channels = int(outcome["sample_rate"]), int(outcome["num_channels"])
            return
        sentence = storable_text(str(outcome.get("error", "")))[:_MAX_SENTENCE_CHARS]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _Died("makes its decoder talk nonsense") from None
    if code == messages.OUT_OF_MEMORY:
        raise _Died(f"needed more than {MEMORY_BYTES >> 30} GB of memory to be decoded")
    if code == "internal":
        log.error("decoding failed: %s", sentence)
        raise InternalError(f"{name} met an unexpected error while it was decoded: the log says where.")
    raise AudioTooLong(sentence) if code == AudioTooLong("").code else AudioError(sentence)


def _error(name: str, why: str) -> ClapboardError:
    """The error of a file whose decoder died."""
    if why:
        return AudioError(f"{name} {why}: it is damaged, or made to break decoders. {_REMEDY}")
    return InternalError(f"The decoder of {name} was ended from outside, perhaps for want of memory: try it again.")


def _in_words(code: int) -> str:
    """An exit status, or a signal's name."""
    with contextlib.suppress(ValueError):
        if code < 0:
            return signal.Signals(-code).name
    return f"code {code}"


@functools.lru_cache(maxsize=1)
def decoders() -> Decoders:
    """The decoders of this process. A fork of it gets its own."""
    pool = Decoders(ForkServer())
    atexit.register(pool.close)
    os.register_at_fork(after_in_child=pool.abandon)
    return pool
