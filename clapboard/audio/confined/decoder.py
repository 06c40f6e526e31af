"""A decoder process: decodes one file after the other, until the process that it works for is gone."""

from __future__ import annotations

import importlib
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt
import soundfile

from clapboard.audio.confined import messages
from clapboard.audio.confined.messages import NUM_SLOTS, SLOT_SAMPLES, Request
from clapboard.audio.pieces import Bound, Condition
from clapboard.errors import AudioError
from clapboard.logs import describe

Block = npt.NDArray[np.float32]
Decode = Callable[[IO[bytes], Bound, str, Condition], Iterator[Block]]

_ALIVE_EVERY_S = 1.0


def serve(connection: socket.socket, slots: npt.NDArray[np.float32], decode: Decode) -> NoReturn:
    """Decode files into the `slots` `[2, 480000]`."""
    try:
        while True:
            content, descriptors, _, _ = socket.recv_fds(connection, messages.MAX_BYTES, 1)
            if not content:
                os._exit(0)
            if content == messages.TAKEN:  # the last slots of the file before
                continue
            with os.fdopen(descriptors[0], "rb") as file:
                outcome = _outcome(_Writer(connection, slots), file, Request(**json.loads(content)), decode)
            connection.send(messages.OUTCOME + json.dumps(outcome).encode())
    except OSError:  # the other side is gone
        os._exit(0)


def warm_up(decode: Decode) -> None:
    """Decode a moment of silence, by each library, so that nothing is left to be imported later."""
    importlib.import_module("av.subtitles.codeccontext")  # for films
    for form in ("WAV", "FLAC"):  # libsndfile reads the first, FFmpeg the second
        file = io.BytesIO()
        soundfile.write(file, np.zeros(1_024, np.float32), 8_000, format=form)
        for _ in decode(file, Bound("silence"), "", Condition()):
            pass


def _outcome(writer: _Writer, file: IO[bytes], request: Request, decode: Decode) -> dict[str, Any]:
    """The condition of the recording, once it is written, or what is wrong with it."""
    condition = Condition()
    bound = Bound(request.name, request.longest_s, writer.show_life)
    try:
        for block in decode(file, bound, request.channel, condition):
            writer.write(block)
        writer.hand_over()
    except AudioError as error:
        return {"code": error.code, "error": str(error)}
    except MemoryError:
        return {"code": messages.OUT_OF_MEMORY}
    except Exception as error:
        return {"code": "internal", "error": describe(error)}
    return asdict(condition)


class _Writer:
    """Fills the slots in turn. At each, waits until its last content was taken."""

    def __init__(self, connection: socket.socket, slots: npt.NDArray[np.float32]) -> None:
        self._connection = connection
        self._slots = slots
        self._slot = 0
        self._num_samples = 0  # in the slot
        self._num_free = NUM_SLOTS
        self._shown_at = time.monotonic()

    def write(self, block: Block) -> None:
        """Add samples `[t]`."""
        done = 0
        while done < block.size:
            if not self._num_samples:
                self._wait_for_slot()
            part = block[done : done + SLOT_SAMPLES - self._num_samples]
            self._slots[self._slot, self._num_samples : self._num_samples + part.size] = part
            self._num_samples += part.size
            done += part.size
            if self._num_samples == SLOT_SAMPLES:
                self.hand_over()

    def hand_over(self) -> None:
        """Give away what the slot holds."""
        if self._num_samples:
            self._connection.send(messages.SLOT + messages.SAMPLES.pack(self._num_samples))
            self._slot = (self._slot + 1) % NUM_SLOTS
            self._num_samples = 0
            self._num_free -= 1

    def show_life(self) -> None:
        """Called while nothing may come out yet, as in the first pass over a recording."""
        if time.monotonic() - self._shown_at > _ALIVE_EVERY_S:
            self._connection.send(messages.ALIVE)
            self._shown_at = time.monotonic()

    def _wait_for_slot(self) -> None:
        while True:
            try:
                message = self._connection.recv(1, 0 if self._num_free == 0 else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not message:
                os._exit(0)
            self._num_free += 1
