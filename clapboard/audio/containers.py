"""A file → the recordings in it, one after the other, with the sizes that they have, not those that they claim.

A recorder that loses power leaves sizes of 0, a stream leaves the largest possible ones, a careless edit any, and `cat`
leaves several recordings in one file, of which decoders read the first. So the boundaries are found here. Containers of
plain samples are in `plain_containers`. Left to the demuxer are those that don't claim sizes, or whose demuxer goes by
what it finds: MP3, FLAC, ADTS and their like.

Sources: ISO/IEC 14496-12 (MP4), RFC 8794 (EBML), RFC 3533 (Ogg).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO

from clapboard.audio.plain_containers import is_plain_container, plain_part
from clapboard.audio.scanning import bytes_at, find
from clapboard.audio.sections import Part

_EBML = b"\x1aE\xdf\xa3"
_HEAD_BYTES = 16
_OGG_HEAD_BYTES = 27
_OGG_FIRST_PAGE = re.compile(rb"OggS\x00[\x02\x03\x06\x07]")  # of a stream
# How the next recording begins, for formats whose demuxer would stop there or lose some of it.
_NEXT_RECORDING = {
    b"fLaC": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"),
    b"TTA1": re.compile(rb"TTA1[\x01-\x03]\x00[\x01-\x10]\x00[\x08\x10\x18\x20]\x00"),
    # WavPack's block number 0, with the flag of the first block of those that make up all channels.
    b"wvpk": re.compile(
        rb"wvpk.{4}[\x02-\x10]\x04\x00.{5}\x00{4}.{5}["
        + b"".join(re.escape(bytes([flags])) for flags in range(256) if flags & 8)
        + rb"]",
        re.DOTALL,
    ),
}
_MOST_PARTS = 10_000
_MOST_BOXES = 10_000
_MOST_PAGES = 10_000


def parts(file: IO[bytes]) -> Iterator[Part]:
    """The recordings in the file, in order. A file that isn't known to hold several is one recording."""
    end = file.seek(0, os.SEEK_END)
    start = 0
    for _ in range(_MOST_PARTS):
        part = _first_part(file, start, end)
        yield part
        start = part.end
        if start >= end:
            return


def _first_part(file: IO[bytes], start: int, end: int) -> Part:
    head = bytes_at(file, start, _HEAD_BYTES)
    if is_plain_container(head):
        return plain_part(file, start, end)
    if head[4:8] == b"ftyp":
        return Part(start, _mp4_end(file, start, end))
    if head.startswith(_EBML):
        return Part(start, _ebml_end(file, start, end))
    if pattern := _NEXT_RECORDING.get(head[:4]):
        return Part(start, find(pattern, file, start + len(head), end))
    if head.startswith(b"OggS"):
        return Part(start, _ogg_end(file, start, end))
    return Part(start, end)


def _mp4_end(file: IO[bytes], start: int, end: int) -> int:
    """Where an MP4 that is joined to this one begins, before which players stop; `end` if there is none."""
    at, has_index = start, False
    for _ in range(_MOST_BOXES):
        head = bytes_at(file, at, _HEAD_BYTES).ljust(_HEAD_BYTES, b"\0")
        if head[4:8] == b"ftyp" and has_index:
            return at
        has_index |= head[4:8] == b"moov"
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        at += size
        if size < 8 or at >= end:
            break
    return end


def _ebml_end(file: IO[bytes], start: int, end: int) -> int:
    """Where a Matroska or WebM file that is joined to this one begins; `end` if there is none."""
    at = start
    for _ in range(2):  # the header, then the segment
        head = bytes_at(file, at, _HEAD_BYTES).ljust(_HEAD_BYTES, b"\0")
        id_bytes = 9 - head[0].bit_length()
        size_bytes = 9 - head[id_bytes].bit_length() if id_bytes < 8 else 9
        if size_bytes > 8:
            return end
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
        at += id_bytes + size_bytes + size
    return at if at < end and bytes_at(file, at, 4) == _EBML else end


def _ogg_end(file: IO[bytes], start: int, end: int) -> int:
    """Where the next link of an Ogg chain begins: at a first page after those of this link. `end` if there is none."""
    at = start
    for _ in range(_MOST_PAGES):
        head = bytes_at(file, at, _OGG_HEAD_BYTES + 255)
        if len(head) < _OGG_HEAD_BYTES or not _OGG_FIRST_PAGE.match(head):
            break
        num_segments = head[_OGG_HEAD_BYTES - 1]
        at += _OGG_HEAD_BYTES + num_segments + sum(head[_OGG_HEAD_BYTES : _OGG_HEAD_BYTES + num_segments])
    return find(_OGG_FIRST_PAGE, file, at, end)
