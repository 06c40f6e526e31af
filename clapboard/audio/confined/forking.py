"""The fork server, `python -m clapboard.audio.confined.forking`: imports the decoders once, and forks them.

It never reads audio itself, and ends when its socket's other end is closed.
"""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import signal
import socket
import sys
from typing import NoReturn

import numpy as np

from clapboard.audio.confined import messages
from clapboard.audio.confined.decoder import Decode, serve, warm_up
from clapboard.audio.confined.limits import confine


def main() -> None:
    """Serve the socket whose descriptor is given; decoders run the function that is given as module:name."""
    control = socket.socket(fileno=int(sys.argv[1]))
    module, name = sys.argv[2].split(":")
    decode: Decode = getattr(importlib.import_module(module), name)
    warm_up(decode)
    gc.collect()
    gc.freeze()  # or each fork would copy what its collector looks at
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, messages.COMMAND.size, 2)
        if not message:
            os._exit(0)  # the decoders end with it
        command, number = messages.COMMAND.unpack(message)
        if command == messages.END:
            os.kill(number, signal.SIGKILL)  # its number is nobody else's until it has been waited for
            answer = os.waitpid(number, 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                control.close()
                connection, memory = descriptors
                _decode_until_the_end(connection, memory, decode)
            for descriptor in descriptors:
                os.close(descriptor)
        control.send(messages.ANSWER.pack(answer))


def _decode_until_the_end(connection: int, memory: int, decode: Decode) -> NoReturn:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # libraries write there
        os.dup2(nowhere, stream)
    os.close(nowhere)
    shared = mmap.mmap(memory, messages.SLOTS_BYTES)
    os.close(memory)
    slots = np.frombuffer(shared, np.float32).reshape(messages.NUM_SLOTS, messages.SLOT_SAMPLES)
    ours = socket.socket(fileno=connection)
    confine()
    serve(ours, slots, decode)


if __name__ == "__main__":
    main()
