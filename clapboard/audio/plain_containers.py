"""Containers of plain samples (WAV, RF64, AIFF, CAF, Wave64, AU) → where a recording ends, and its true sizes.

A claimed size counts if what follows the sound makes sense. Otherwise the sound goes on to the end of the file, or to
where another recording begins. The true sizes then become patches, with which decoders read all of the sound.

Sources: RIFF (Microsoft 1991), RF64 (EBU Tech 3306), AIFF-C (Apple 1991), CAF (Apple 2011), Wave64 (Sony 2003), AU
(Sun).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import IO, Literal

from clapboard.audio.scanning import bytes_at, find, is_junk
from clapboard.audio.sections import Part

_W64 = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of most chunk ids
_HEAD_BYTES = 16
_UNKNOWN = 0xFFFFFFFF
_STREAMED_FROM = 0x7FFF0000  # 32-bit sizes from here on that reach beyond the end mean «not known»
# Samples that count as plain: libsndfile's decoders of all others can't cope with damage.
_PLAIN_TAGS = frozenset({1, 3, 6, 7, 0xFFFE})  # of WAV and Wave64: PCM, floats, A-law, µ-law, extensible
_PLAIN_NAMES = frozenset(
    {b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64", b"lpcm"}
    | {b"ulaw", b"ULAW", b"alaw", b"ALAW"}
)  # of AIFF and CAF
_PLAIN_AU = frozenset({1, 2, 3, 4, 5, 6, 7, 27})
_MOST_CHUNKS = 10_000
_METADATA = frozenset(
    {b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"axml", b"cue ", b"smpl", b"PEAK", b"JUNK", b"FLLR"}
)
_CHUNK_NAME = re.compile(rb"[ -~]{4}")
_BEGINNING = re.compile(
    rb"(RIFF|RIFX|RF64)....WAVE|FORM....AIF[FC]|\.snd\x00\x00..|caff\x00\x01\x00\x00|" + re.escape(_W64), re.DOTALL
)


def is_plain_container(head: bytes) -> bool:
    """Whether a recording that begins with these 16 bytes is in one of these containers."""
    return _BEGINNING.match(head) is not None


def plain_part(file: IO[bytes], start: int, end: int) -> Part:
    """The recording in one of these containers that begins at `start`, in a file that ends at `end`."""
    head = bytes_at(file, start, _HEAD_BYTES)
    if head.startswith(b".snd"):
        return _au_part(file, start, end)
    return _ChunkWalk(file, start, end, _LAYOUTS[head[:4]]).part() or Part(start, end)


@dataclass(frozen=True)
class _Total:
    """The field with the size of a whole recording."""

    at: int  # from the recording's start
    form: str
    uncounted: int  # bytes of the recording that it doesn't count


@dataclass(frozen=True)
class _Layout:
    """How a container is made of chunks, and which fields tell how much sound it holds."""

    header: int  # bytes before the first chunk
    id_bytes: int
    size_form: str  # of a chunk's size, as `struct` writes it
    sound_id: bytes  # how the id of the chunk with the sound begins
    total: _Total | None
    gap: int = 0  # bytes between the head of that chunk and the sound
    counts_head: bool = False  # sizes count the chunk's id and size too
    align: int = 2

    @property
    def head_bytes(self) -> int:
        """Of a chunk: its id and its size."""
        return self.id_bytes + struct.calcsize(self.size_form)


_LAYOUTS = {
    b"RIFF": _Layout(12, 4, "<I", b"data", _Total(4, "<I", 8)),
    b"RIFX": _Layout(12, 4, ">I", b"data", _Total(4, ">I", 8)),
    b"RF64": _Layout(12, 4, "<I", b"data", None),
    b"FORM": _Layout(12, 4, ">I", b"SSND", _Total(4, ">I", 8), gap=8),
    b"caff": _Layout(8, 4, ">q", b"data", None, gap=4, align=1),
    b"riff": _Layout(40, 16, "<q", b"data", _Total(16, "<q", 0), counts_head=True, align=8),
}


class _ChunkWalk:
    """Goes through the chunks of the recording that begins at `start`."""

    def __init__(self, file: IO[bytes], start: int, end: int, layout: _Layout) -> None:
        self._file = file
        self._start = start
        self._end = end
        self._layout = layout
        self._is_plain = False

    def part(self) -> Part | None:
        """The recording; None if it has no chunk of sound."""
        at = self._start + self._layout.header
        long_size, long_size_at = 0, 0  # RF64 has its true size here if it is too long for the chunk's own field
        for _ in range(_MOST_CHUNKS):
            name, size = self._chunk(at)
            self._read_codec(at, name, size)
            if name == b"ds64":
                long_size_at = at + 16
                long_size = int.from_bytes(bytes_at(self._file, long_size_at, 8), "little")
            if name.startswith(self._layout.sound_id):
                is_long = bool(long_size_at) and size == _UNKNOWN
                return self._part_with_sound(at, long_size if is_long else size, long_size_at if is_long else 0)
            if size < 0 or not name:
                return None
            at = self._next(at, size)
        return None

    def _read_codec(self, at: int, name: bytes, size: int) -> None:
        content = at + self._layout.head_bytes
        if name.startswith(b"fmt "):
            order: Literal["big", "little"] = "big" if self._layout.size_form.startswith(">") else "little"
            self._is_plain = int.from_bytes(bytes_at(self._file, content, 2), order) in _PLAIN_TAGS
        elif name == b"COMM":
            self._is_plain = size <= 18 or bytes_at(self._file, content + 18, 4) in _PLAIN_NAMES
        elif name == b"desc":
            self._is_plain = bytes_at(self._file, content + 8, 4) in _PLAIN_NAMES

    def _part_with_sound(self, at: int, size: int, long_size_at: int) -> Part:
        """The recording whose sound is the chunk at `at`, which claims `size` bytes, at `long_size_at` if not 0."""
        sound = at + self._layout.head_bytes + self._layout.gap
        claim = max(0, size - self._layout.gap)
        end = self._chain_end(sound) if claim == 0 else self._end_after_sound(sound + claim)
        if end is not None:
            return self._patched_part(at, sound, sound + claim, end, long_size_at)
        stop = find(_BEGINNING, self._file, sound, self._end)
        is_streamed = self._layout.size_form.endswith("I") and size >= _STREAMED_FROM
        missing = 0 if is_streamed else max(0, sound + claim - stop)
        return self._patched_part(at, sound, stop, stop, long_size_at, missing)

    def _patched_part(self, at: int, sound: int, stop: int, end: int, long_size_at: int, missing: int = 0) -> Part:
        """The recording up to `end`, with sound from `sound` to `stop`, and patches for the sizes that are wrong."""
        layout = self._layout
        chunk_size = stop - sound + layout.gap + (layout.head_bytes if layout.counts_head else 0)
        sizes = [(at + layout.id_bytes, layout.size_form, chunk_size)]
        if layout.total is not None:
            total_size = end - self._start - layout.total.uncounted
            sizes.append((self._start + layout.total.at, layout.total.form, total_size))
        if long_size_at:
            sizes = [(long_size_at - 8, "<q", end - self._start - 8), (long_size_at, "<q", chunk_size)]
        patches = {}
        for place, form, size in sizes:
            field = struct.pack(form, min(size, _UNKNOWN) if form.endswith("I") else size)
            if field != bytes_at(self._file, place, len(field)):
                patches[place - self._start] = field
        return Part(self._start, end, patches, stop - sound, missing, self._is_plain)

    def _end_after_sound(self, at: int) -> int | None:
        """Where the recording ends if its sound ends at `at`; None if what follows makes no sense."""
        if at > self._end:
            return None
        for chunk in dict.fromkeys((self._aligned(at), at)):
            if (end := self._chain_end(chunk)) is not None:
                return end
        return self._end if is_junk(self._file, at, self._end, self._end - self._start) else None

    def _chain_end(self, at: int) -> int | None:
        """Where a chain of chunks from `at` on ends: with the file, or where another recording begins.

        None if it isn't a chain of chunks.
        """
        for _ in range(_MOST_CHUNKS):
            if at >= self._end - 1:
                return self._end
            if is_plain_container(bytes_at(self._file, at, _HEAD_BYTES)):
                return at
            name, size = self._chunk(at)
            if size < 0 or not self._is_name(name):
                return None
            at = self._next(at, size)
            if at > self._end + self._layout.align:
                return self._end if name in _METADATA else None
        return None

    def _chunk(self, at: int) -> tuple[bytes, int]:
        """The id and size, without its head, of the chunk at `at`; an empty id and -1 if there is none."""
        head = bytes_at(self._file, at, self._layout.head_bytes)
        if len(head) < self._layout.head_bytes:
            return b"", -1
        (size,) = struct.unpack(self._layout.size_form, head[self._layout.id_bytes :])
        return head[: self._layout.id_bytes], size - (self._layout.head_bytes if self._layout.counts_head else 0)

    def _is_name(self, name: bytes) -> bool:
        is_w64 = self._layout.id_bytes == len(_W64)
        return name[4:] == _W64_TAIL if is_w64 else bool(_CHUNK_NAME.fullmatch(name))

    def _next(self, at: int, size: int) -> int:
        """Where the chunk after the one at `at` begins."""
        return self._aligned(at + self._layout.head_bytes + size)

    def _aligned(self, at: int) -> int:
        """The first place from `at` on where a chunk may begin."""
        return at + (self._start - at) % self._layout.align


def _au_part(file: IO[bytes], start: int, end: int) -> Part:
    """The AU recording at `start`: a header with a size, then the sound."""
    offset, claim, codec = struct.unpack(">III", bytes_at(file, start + 4, 12).ljust(12, b"\0"))
    sound = start + offset
    stop = sound + claim
    makes_sense = stop == end or _begins_at(file, stop) or is_junk(file, stop, end, end - start)
    if not claim or stop > end or not makes_sense:
        stop = find(_BEGINNING, file, sound, end)
    missing = 0 if claim == _UNKNOWN else max(0, sound + claim - stop)
    size = struct.pack(">I", min(max(0, stop - sound), _UNKNOWN))
    patches = {8: size} if claim != stop - sound else {}
    return Part(start, stop if _begins_at(file, stop) else end, patches, stop - sound, missing, codec in _PLAIN_AU)


def _begins_at(file: IO[bytes], at: int) -> bool:
    """Whether another recording begins there."""
    return is_plain_container(bytes_at(file, at, _HEAD_BYTES))
