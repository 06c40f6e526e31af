"""What is said to the fork server and to decoders, in packets of Unix sockets."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, dataclass

NUM_SLOTS = 2
SLOT_SAMPLES = 480_000
SLOTS_BYTES = NUM_SLOTS * SLOT_SAMPLES * 4
"""A decoder shares so much memory with the process that it works for: float32 `[2, 480000]`."""

MAX_BYTES = 1 << 16

# To the fork server: `FORK` with the decoder's end of a socket and the shared memory, or `END` with a process's number.
FORK, END = b"f", b"e"
COMMAND = struct.Struct("<cI")
# From it: the new process's number, or how the old one ended, as `waitpid` says.
ANSWER = struct.Struct("<i")

# To a decoder: a `Request` with a file's descriptor, then `TAKEN` for each slot.
TAKEN = b"t"
# From it: `SLOT` with the number of samples in the next slot, now and then `ALIVE`, at last `OUTCOME` with JSON.
SLOT, ALIVE, OUTCOME = b"s", b"a", b"o"
SAMPLES = struct.Struct("<I")

OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class Request:
    """What to make of a file: errors call it `name`; the rest is as in `windows.blocks`."""

    name: str
    channel: str = ""
    longest_s: float = math.inf

    def to_json(self) -> bytes:
        """The request as it is sent."""
        return json.dumps(asdict(self)).encode()
