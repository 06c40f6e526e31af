"""A server's answer → the file in it: gzip is unpacked, a web page is refused."""

from __future__ import annotations

import json
import zlib

from clapboard.errors import SourceError
from clapboard.sources.cache import Sink

_GZIP = b"\x1f\x8b\x08"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_HEAD_BYTES = 512
_MAX_CHUNK_BYTES = 1 << 20
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")


class Unpacker:
    """Writes a download into a sink, and unpacks it if it is gzip, in which some storages keep files."""

    def __init__(self, sink: Sink, name: str) -> None:
        """`name` is what errors call the download."""
        self._sink = sink
        self._name = name
        self.num_bytes = 0
        """How many bytes have arrived, packed or not."""
        self._head: bytes | None = b""  # the first bytes, until the kind of content is known
        self._gzip: zlib._Decompress | None = None

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises `SourceError` for a web page or damaged gzip, and `SourceTooLarge`."""
        self.num_bytes += len(chunk)
        if self._head is None:
            self._pass_on(chunk)
            return
        self._head += chunk
        if len(self._head) >= _HEAD_BYTES:
            self._begin(self._head, is_all=False)

    def finish(self) -> None:
        """End the download. Raises `SourceError` if it is incomplete."""
        if self._head is not None:
            self._begin(self._head, is_all=True)
        if self._gzip is not None and not self._gzip.eof:
            raise SourceError(f"{self._name} is an incomplete gzip file: upload it again.")

    def _begin(self, head: bytes, *, is_all: bool) -> None:
        self._head = None
        if head.startswith(_GZIP):
            self._gzip = zlib.decompressobj(_GZIP_WINDOW)
        elif kind := _page(head, is_all=is_all):
            raise SourceError(
                f"{self._name} isn't audio: the server answered with {kind}. Give the file's own address."
            )
        self._pass_on(head)

    def _pass_on(self, chunk: bytes) -> None:
        if self._gzip is None:
            self._sink.write(chunk)
            return
        try:
            while chunk:
                content = self._gzip.decompress(chunk, _MAX_CHUNK_BYTES)
                self._sink.write(content)
                chunk = self._gzip.unconsumed_tail
                if self._gzip.eof and self._gzip.unused_data.startswith(_GZIP):  # a gzip file may have several members
                    chunk = self._gzip.unused_data
                    self._gzip = zlib.decompressobj(_GZIP_WINDOW)
        except zlib.error:
            raise SourceError(f"{self._name} is a damaged gzip file: upload it again.") from None


def _page(head: bytes, *, is_all: bool) -> str:
    """«a web page» or «JSON» if the content is that, else empty; no audio file begins like either."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.lower().startswith(_PAGES):
        return "a web page"
    if text[:1] not in (b"{", b"["):
        return ""
    if is_all:
        try:
            json.loads(text)
        except ValueError:
            return ""
        return "JSON"
    return "JSON" if text[1:].lstrip()[:1] in (b'"', b"{", b"[") and text.isascii() else ""
